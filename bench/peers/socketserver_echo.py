"""Lines on the standard socketserver: Threading|Forking tcp|unix|udp PORT|PATH."""
import socketserver
import sys

mixin, kind, where = sys.argv[1:]


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class EchoDatagram(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        sock.sendto(data, self.client_address)


base = {"tcp": "TCPServer", "unix": "UnixStreamServer", "udp": "UDPServer"}[kind]
Server = type("Server", (getattr(socketserver, mixin + "MixIn"), getattr(socketserver, base)), {
    "allow_reuse_address": True,
    "daemon_threads": True,
    "max_children": 10000,
    "request_queue_size": 1024,  # of 5, the default, connections would be lost
})
address = where if kind == "unix" else ("127.0.0.1", int(where))
Server(address, EchoDatagram if kind == "udp" else Echo).serve_forever()
