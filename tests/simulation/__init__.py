"""The simulator: small worlds whose every second and cent can be worked out by hand, and what is made of them."""
