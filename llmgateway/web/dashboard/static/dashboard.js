// What pages do on top of plain links and forms. Everything works without it, but for copying.
"use strict";
document.documentElement.classList.add("js");

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const range = document.createRange();
  range.selectNodeContents(source);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    document.execCommand("copy"); // plain http on another machine: browsers have no clipboard there
  }
  button.textContent = "Copied";
});

// Only the browser knows the whole address of the gateway, if a proxy in front takes away a part of it.
document.addEventListener("DOMContentLoaded", () => {
  for (const place of document.querySelectorAll("[data-root]"))
    place.textContent = new URL(place.dataset.root, location.href).href.replace(/\/$/, "");
});

// A second click must not send a form twice.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || event.defaultPrevented) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
  setTimeout(() => delete form.dataset.sent, 3000);
});

// Selects of filters apply at once.
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-apply]");
  if (form && event.target.matches("select, input[type=checkbox], input[type=date]")) form.requestSubmit();
});
