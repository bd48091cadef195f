"""A camera that speaks RTSP, run by the system's Python: numbered pictures in, a real server out.

    /usr/bin/python3 rtsp_camera.py PORT FEED FIRST [USER PASSWORD]

FEED holds encoded pictures, each behind its length (4 bytes, big endian). They are sent at 25 a
second from number FIRST on, whether or not anybody looks, as a camera does. Each line of stdout is
the number of a connection and of a picture that was handed to it. Lines on stdin: "cut" ends all
connections, "hush" and "speak" stop and go on sending, "slow" sends ten times slower; "cut 75"
waits until picture 75 is due. Knows nothing of the library that it tests.
"""

import struct
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  # their versions come first

PIPELINE = (
    "( appsrc name=src is-live=true do-timestamp=true format=time "
    "caps=video/x-h264,stream-format=byte-stream,alignment=au "
    "! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)
RATE_HZ = 25


def read_feed(path):
    """Return the encoded pictures of a file."""
    pieces = []
    with open(path, "rb") as file:  # noqa: PTH123  # as short as it gets
        while head := file.read(4):
            pieces.append(file.read(struct.unpack("!I", head)[0]))
    return pieces


class Camera:
    """Sends pictures to whoever looks."""

    def __init__(self, pieces, first):
        self.pieces, self.next = pieces, first
        self.source, self.connection = None, 0
        self.is_hushed, self.slowness = False, 1
        self.begun = threading.Event()
        self.due, self.cut = {}, None

    def configure(self, factory, media):
        """Take a new connection's source."""
        source = media.get_element().get_child_by_name("src")
        source.connect("need-data", self.wanted)
        media.connect("unprepared", lambda _: self.leave(source))

    def wanted(self, source, length):
        """Begin to send to a source; it asks more than once."""
        self.connection += source is not self.source
        self.source = source
        self.begun.set()

    def leave(self, source):
        """Nobody looks at a source any more."""
        if self.source is source:
            self.source = None

    def run(self):
        """Send one picture after the other, once somebody has looked."""
        self.begun.wait()
        due_s = time.monotonic()
        while self.next < len(self.pieces):
            due_s += self.slowness / RATE_HZ
            time.sleep(max(0.0, due_s - time.monotonic()))
            self.obey(self.due.pop(self.next, ""))
            source, connection = self.source, self.connection
            if not self.is_hushed and source is not None:
                buffer = Gst.Buffer.new_wrapped(self.pieces[self.next])
                if source.emit("push-buffer", buffer) == Gst.FlowReturn.OK:
                    print(connection, self.next, flush=True)
            self.next += not self.is_hushed

    def obey(self, word):
        """Do what a word says."""
        if word == "cut":
            self.cut()
        self.slowness = 10 if word == "slow" else self.slowness
        self.is_hushed = {"hush": True, "speak": False}.get(word, self.is_hushed)


def main():
    """Serve until stdin ends."""
    port, feed, first = sys.argv[1:4]
    Gst.init(None)
    camera = Camera(read_feed(feed), int(first))
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE)
    factory.set_shared(False)  # a connection never takes over what was begun for another
    factory.connect("media-configure", camera.configure)
    if len(sys.argv) > 4:
        user, password = sys.argv[4:6]
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("viewer", "media.factory.access", True)
        permissions.add_permission_for_role("viewer", "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/ch1", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} is taken")
    loop = GLib.MainLoop()
    camera.cut = lambda: GLib.idle_add(
        server.client_filter, lambda *_: GstRtspServer.RTSPFilterResult.REMOVE
    )
    threading.Thread(target=camera.run, daemon=True).start()
    threading.Thread(target=listen, args=(camera, loop), daemon=True).start()
    print("ready", flush=True)
    loop.run()


def listen(camera, loop):
    """Do what stdin says, until it ends."""
    for line in sys.stdin:
        word, *number = line.split()
        if number:
            camera.due[int(number[0])] = word
        else:
            camera.obey(word)
    loop.quit()


if __name__ == "__main__":
    main()
