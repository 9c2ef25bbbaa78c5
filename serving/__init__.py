"""What our services have in common when they are asked over HTTP: metrics, health, content encodings, who may ask."""
