"""Examples for the help of each command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

EXAMPLES: Mapping[str, Sequence[str]] = {
    "try": ["llmgateway try", "llmgateway try --port 9000"],
    "serve": ["llmgateway serve", "llmgateway serve --host 0.0.0.0 --processes 2"],
    "simulator": ["llmgateway simulator --port 9100"],
    "rebuild-usage": ["llmgateway rebuild-usage"],
    "keys list": [
        "llmgateway keys list --group physics --columns user,expires_at,limits --sort user",
        "llmgateway keys list --group physics --columns user,spent,left,last_used --sort left",
        "llmgateway keys list --json | jq -r '.[] | select(.active | not) | .user'",
    ],
    "keys add": [
        "llmgateway keys add ada --group physics --budget 5usd/month",
        "llmgateway keys add ada --name thesis --model gpt-4o-mini --expires-at 2027-03-31 > key.txt",
    ],
    "keys show": ["llmgateway keys show ada", "llmgateway keys show key_0198f2a4c1d37c5e1b2a9f04 --json"],
    "keys set": ["llmgateway keys set ada --budget 10usd/month", "llmgateway keys set ada --requests-per-minute none"],
    "keys remove": ["llmgateway keys remove ada", "llmgateway keys remove ada --all --yes"],
    "keys raise": [
        "llmgateway keys raise ada --requests-per-minute 120 --until tomorrow",
        "llmgateway keys raise ada --end",
    ],
    "keys rotate": ["llmgateway keys rotate ada --overlap 86400 > key.txt"],
    "keys block": ["llmgateway keys block ada", "llmgateway keys block ada --all"],
    "keys unblock": ["llmgateway keys unblock ada"],
    "keys import": ["llmgateway keys import students.csv --output keys.csv"],
    "keys bulk": [
        "llmgateway keys bulk block --group physics --dry-run",
        "llmgateway keys bulk move --group physics --to chemistry",
        "llmgateway keys bulk extend --group physics --expired --to 2027-09-30",
    ],
    "keys prune": ["llmgateway keys prune --unused 180d --dry-run"],
    "users export": ["llmgateway users export ada -o ada.json"],
    "users erase": ["llmgateway users erase ada --dry-run", "llmgateway users erase ada"],
    "groups list": ["llmgateway groups list", "llmgateway groups list --columns name,spent,left --sort -spent"],
    "groups show": ["llmgateway groups show physics"],
    "groups set": [
        "llmgateway groups set physics --budget 200usd/month --expires-at 2027-03-31",
        "llmgateway groups set physics --member-budget 2usd/week --member-requests-per-minute 20",
    ],
    "groups raise": ["llmgateway groups raise physics --budget 300usd/month --until 2027-03-31"],
    "groups statement": [
        "llmgateway groups statement physics --month 2026-10",
        "llmgateway groups statement physics --month 2026-10 --format html -o physics.html",
    ],
    "groups remove": ["llmgateway groups remove physics"],
    "groups revoke": ["llmgateway groups revoke physics"],
    "groups close": [
        "llmgateway groups close physics --keys remove > members.csv",
        "llmgateway groups close physics --move-to chemistry --dry-run",
    ],
    "users list": ["llmgateway users list", "llmgateway users list --json | jq -r '.[].user'"],
    "users show": ["llmgateway users show ada"],
    "users limits": ["llmgateway users limits ada --budget 8usd/month --requests-per-minute none"],
    "users raise": ["llmgateway users raise ada --budget 16usd/month --until 3h", "llmgateway users raise ada --end"],
    "users reset": ["llmgateway users reset ada"],
    "settings show": ["llmgateway settings show"],
    "settings set": ["llmgateway settings set --timezone Europe/Berlin"],
    "limits show": ["llmgateway limits show"],
    "limits set": ["llmgateway limits set --budget 2000usd/month", "llmgateway limits set --tokens-per-minute none"],
    "prompt show": ["llmgateway prompt show", "llmgateway prompt show --group physics"],
    "prompt set": [
        "llmgateway prompt set prompt.txt",
        "echo 'Answer in German.' | llmgateway prompt set - --group physics",
    ],
    "prompt clear": ["llmgateway prompt clear --group physics"],
    "prompt versions": ["llmgateway prompt versions"],
    "prompt preview": ["llmgateway prompt preview --group physics 'What is light?'"],
    "llm-key set": ["llmgateway llm-key set", "llmgateway llm-key set < azure-key.txt"],
    "models list": ["llmgateway models list"],
    "models show": ["llmgateway models show gpt-4o-mini"],
    "models set": ["llmgateway models set house-model --prompt 0.15 --cached 0.075 --completion 0.6"],
    "models remove": ["llmgateway models remove house-model"],
    "models deploy": [
        "llmgateway models deploy gpt-4o --name sweden --base-url https://NAME.openai.azure.com/openai/v1"
    ],
    "models undeploy": ["llmgateway models undeploy gpt-4o sweden"],
    "models alias": ["llmgateway models alias gpt-4o 'gpt-4o-*'"],
    "models import": ["llmgateway models import https://NAME.openai.azure.com --key-from-stdin < azure-key.txt"],
    "models prices": ["llmgateway models prices prices.json --dry-run"],
    "doctor": ["llmgateway doctor"],
    "usage": [
        "llmgateway usage",
        "llmgateway usage --by group --start 2026-10-01 --end 2026-10-31 --sort -cost_usd",
        "llmgateway usage --by week,cost_centre --currency EUR",
        "llmgateway usage --by user --csv > usage.csv",
    ],
    "statement": [
        "llmgateway statement --month 2026-10",
        "llmgateway statement --month 2026-10 --format csv -o october.csv",
    ],
    "currency show": ["llmgateway currency show"],
    "currency set": [
        "llmgateway currency set EUR --rate 2026-09=0.91 --rate 2026-10=0.92",
        "llmgateway currency set CHF --rate 2026-10=0.8 --replace",
    ],
    "currency remove": ["llmgateway currency remove --yes"],
    "filters": ["llmgateway filters --by group,category"],
    "logs list": [
        "llmgateway logs list --user ada --limit 20",
        "llmgateway logs list --outcome upstream_error --since 2026-10-01",
        "llmgateway logs list --refusals --group physics --code insufficient_quota",
    ],
    "logs show": ["llmgateway logs show 019b3f2a-7c10-7d41-8d98-f00b2042a17e"],
    "audit": ["llmgateway audit --target physics"],
    "status": ["llmgateway status", "llmgateway status --json | jq .stores"],
    "alerts show": ["llmgateway alerts show", "llmgateway alerts show --json | jq '.alerts[0].text'"],
    "alerts set": [
        "llmgateway alerts set --smtp --from llmgateway@example.org --email admin@example.org",
        "llmgateway alerts set --add-webhook teams",
        "llmgateway alerts set --threshold 80 --threshold 100 --event budget --event store",
        "llmgateway alerts set --file alerts.json",
    ],
    "alerts test": ["llmgateway alerts test"],
    "reconcile": ["llmgateway reconcile cost-export.csv"],
    "completion": ['eval "$(llmgateway completion bash)"', "llmgateway completion fish | source"],
}
"""Commands that work as they are, by the words of the command."""
