"""
A simulated network beneath real sockets: hosts, links and faults, in virtual time.

How it works and why: docs/en/design/network.md. From the outside in: `_network` (what a test says),
`_host`, `_faults`, `_links`, `_names`, `_disk`; `_sockets` (the methods put in the place of those
of ``socket.socket``); `_endpoint`, `_stream`, `_datagram` (one socket of a program), `_filter`;
`_wires` (what programs have written, taken from the kernel); `_events` (what happens when).
"""
