"""A simulator of Azure OpenAI, which needs no subscription.

It answers with the same headers and JSON fields as Azure: chat, responses, completions, embeddings, images, audio
(:mod:`~llmgateway.simulator.routes` has the table), the lists of models and deployments, and requests for tokens of
Entra ID (:mod:`~llmgateway.simulator.identity`), on

* ``POST /openai/deployments/{deployment}/chat/completions?api-version=…`` (classic),
* ``POST /openai/v1/chat/completions`` (``model`` is the deployment),
* ``POST /anything/deployments/{deployment}/chat/completions`` (as behind API Management).

The text of an answer is predictable (:func:`answer_to`). A prompt that contains :data:`FILTERED_PHRASE` triggers the
content filter. A :class:`Script` makes the simulator answer in another way: with an error, a pause, a closed
connection, silence or garbage, after minutes of unseen reasoning, or in the manner of another maker. Afterwards the
served requests can be read (:class:`Served`), with what Azure bills for each; :mod:`~llmgateway.simulator.bills` writes
the bill. A :class:`Subscription` is several of them, as regions::

    with Simulator(key="k") as azure:
        azure.script(Script(tokens=50, gap=0.02, cut_after_events=10))
        …
        [one] = azure.wait_for(lambda served: served and served[0].status)

Another process can use these endpoints. They need no login, so the address must not be reachable by others:

=============================  =======================================================================
``POST /simulator/script``     the fields of a :class:`Script` as an object, ``"times"`` (1; ``null``
                               for every request until a reset), and ``"for": "identity"`` if it is for
                               requests for tokens; 400 with ``{"problem"}`` if impossible
``GET /simulator/served``      ``{"served": [...]}`` (:meth:`Served.as_json`); of credentials only whether
                               they were right; ``?for=identity``: the requests for tokens
``POST /simulator/identity``   ``{"lifetime": 60, "allowed": true}``: of tokens
``GET /simulator/bill``        the bill as CSV, ``?schema=focus&unit=1K``
``GET /simulator/metrics``     Azure Monitor's metrics as JSON, ``?name=ProcessedPromptTokens``
``POST /simulator/release``    lets stalled answers go on
``DELETE /simulator/served``   forgets scripts, what was served and the bill, and releases
=============================  =======================================================================
"""

from .chat import FILTERED_PHRASE
from .completions import answer_to
from .deployments import DEFAULT_DEPLOYMENTS, OTHER_DEPLOYMENTS, Deployment
from .faults import FAULTS, REFUSALS_OF_STREAM_OPTIONS
from .identity import Directory
from .regions import Subscription
from .response_store import ResponseStore
from .scripts import Raw, Script
from .served import Served
from .server import DEFAULT_KEY, Simulator, run, serve

__all__ = [
    "DEFAULT_DEPLOYMENTS",
    "DEFAULT_KEY",
    "FAULTS",
    "FILTERED_PHRASE",
    "OTHER_DEPLOYMENTS",
    "REFUSALS_OF_STREAM_OPTIONS",
    "Deployment",
    "Directory",
    "Raw",
    "ResponseStore",
    "Script",
    "Served",
    "Simulator",
    "Subscription",
    "answer_to",
    "run",
    "serve",
]
