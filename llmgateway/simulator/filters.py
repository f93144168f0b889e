"""What Azure's content filter says, as it was recorded."""

SAFE = (
    b'{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"},'
    b'"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}'
)
HATEFUL = SAFE.replace(b'"filtered":false,"severity":"safe"', b'"filtered":true,"severity":"high"', 1)
SAFE_WHOLE = (
    b'{"hate":{"filtered":false,"severity":"safe"},"protected_material_code":{"detected":false,"filtered":false},'
    b'"protected_material_text":{"detected":false,"filtered":false},"self_harm":{"filtered":false,"severity":"safe"},'
    b'"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}'
)
"""In answers that are not streamed, Azure also checks for protected material (recorded 2026-03-31)."""
PROMPT_RESULTS = (
    b'[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"jailbreak":'
    b'{"detected":false,"filtered":false},"self_harm":{"filtered":false,"severity":"safe"},"sexual":'
    b'{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}}]'
)
OUTAGE = (
    b'"content_filter_result":{"error":{"code":"content_filter_error","message":"The contents are not filtered"}},'
    b'"content_filter_results":{}'
)
