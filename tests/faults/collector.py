"""A small OTLP/HTTP collector: takes traces as protobuf, and keeps the spans and the bytes."""

import http.server
import threading


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """(number, value) of a message: integers as such, everything else as bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
        else:
            length = {1: 8, 5: 4}.get(kind)
            if length is None:
                length, at = varint(data, at)
            value, at = data[at:at + length], at + length
        yield number, value


def each(data, number):
    return [value for found, value in fields(data) if found == number]


def one(data, number, default=b""):
    return next(iter(each(data, number)), default)


def text(value):
    """An AnyValue: a string, an integer, or a list of them."""
    for number, content in fields(value):
        if number == 1:
            return content.decode()
        if number == 3:
            return content
        if number == 5:
            return [text(inner) for inner in each(content, 1)]
    return None


def spans(request):
    """The spans of an ExportTraceServiceRequest, with the resource's attributes."""
    for resource_spans in each(request, 1):
        resource = {one(pair, 1).decode(): text(one(pair, 2)) for pair in each(one(resource_spans, 1), 1)}
        for scope_spans in each(resource_spans, 2):
            for span in each(scope_spans, 2):
                yield {
                    "service": resource.get("service.name"),
                    "trace": one(span, 1).hex(),
                    "id": one(span, 2).hex(),
                    "parent": one(span, 4).hex(),
                    "name": one(span, 5).decode(),
                    "start": int.from_bytes(one(span, 7), "little"),
                    "end": int.from_bytes(one(span, 8), "little"),
                    "attributes": {one(pair, 1).decode(): text(one(pair, 2)) for pair in each(span, 9)},
                    "error": one(one(span, 15), 3, 0) == 2,
                }


class Collector:
    def __enter__(self):
        self.spans, self.bytes = [], b""
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                good = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
                if good:
                    collector.bytes += body
                    collector.spans += spans(body)
                self.send_response(200 if good else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
