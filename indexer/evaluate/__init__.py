"""How good an index answers, measured on videos with captions, spans or labels: `evaluate_index`."""
