"""The Avro contracts (``*.avsc``), their released versions (``history/``) and the gate that guards both.

``python -m schemas.gate`` checks them, ``python -m schemas.gate --release`` adds the current ones as next
version.
"""
