"""Work on the nodes of a Ray cluster: groups of items, sent, watched, and sent again elsewhere.

``gpu.py`` is the GPU resource that an asset sees; ``connection.py`` the way to the cluster;
``dispatch.py`` sends groups and follows them; ``board.py`` is where nodes tell what they did;
``remote.py`` and ``node.py`` run on the nodes. Ray is imported inside functions: without the extra
``cluster`` everything else works.
"""
