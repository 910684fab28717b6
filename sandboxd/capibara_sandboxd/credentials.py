"""Keys and tokens that clients send."""

import hmac


def matches(sent: str, secret: str) -> bool:
    """Whether what a header holds is the secret, in constant time.

    A header's bytes beyond ASCII come as lone surrogates, which plain encoding refuses.
    """
    return hmac.compare_digest(sent.encode(errors="surrogateescape"), secret.encode())
