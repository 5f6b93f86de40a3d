"""A Kubernetes cluster of this machine's own: real API server and controllers, no packet leaves.

`build` compiles the parts, `up` starts them in a network namespace that has only loopback,
`down` ends exactly them. `README.md` one folder up says what each level holds.
"""
