"""The organisation's identity provider, which signs people in with OpenID Connect (extra ``oidc``)."""
