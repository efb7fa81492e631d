"""The JSON API under /api: who may ask (access), for what (routes), and both ends of the wire between the public
function (relay) and the one that reaches the database (backend).
"""
