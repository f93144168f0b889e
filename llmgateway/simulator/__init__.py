"""A simulator of Azure OpenAI, which needs no subscription.

It answers chat completions with the same headers and JSON fields as Azure, on

* ``POST /openai/deployments/{deployment}/chat/completions?api-version=…`` (classic),
* ``POST /openai/v1/chat/completions`` (``model`` is the deployment),
* ``POST /anything/deployments/{deployment}/chat/completions`` (as behind API Management).

The text of an answer is predictable (:func:`answer_to`). A prompt that contains :data:`FILTERED_PHRASE` triggers the
content filter. A :class:`Script` makes the simulator answer in another way: with an error, a pause, a closed
connection, silence or garbage. Afterwards the served requests can be read (:class:`Served`)::

    with Simulator(key="k") as azure:
        azure.script(Script(tokens=50, gap=0.02, cut_after_events=10))
        …
        [one] = azure.wait_for(lambda served: served and served[0].status)

Another process can use these endpoints. They need no login, so the address must not be reachable by others:

=============================  =======================================================================
``POST /simulator/script``     the fields of a :class:`Script` as an object, and ``"times"`` (1; ``null``
                               for every request until a reset); 400 with ``{"problem"}`` if impossible
``GET /simulator/served``      ``{"served": [...]}`` (:meth:`Served.as_json`); of credentials only whether
                               they were right
``POST /simulator/release``    lets stalled answers go on
``DELETE /simulator/served``   forgets scripts and what was served, and releases
=============================  =======================================================================
"""

from .chat import FILTERED_PHRASE
from .completions import answer_to
from .deployments import DEFAULT_DEPLOYMENTS, Deployment
from .faults import FAULTS
from .scripts import Raw, Script
from .served import Served
from .server import DEFAULT_KEY, Simulator, serve

__all__ = [
    "DEFAULT_DEPLOYMENTS",
    "DEFAULT_KEY",
    "FAULTS",
    "FILTERED_PHRASE",
    "Deployment",
    "Raw",
    "Script",
    "Served",
    "Simulator",
    "answer_to",
    "serve",
]
