"""How kitd proves to a registry who it is: one module a scheme, `authenticator` lists them."""
