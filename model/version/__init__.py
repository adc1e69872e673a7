"""A trained model as a file that a worker loads: artifact, manifest, registry, runtime. All that a worker needs of
`model`.
"""
