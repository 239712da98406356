"use strict";
// The connection to the server: it comes back by itself, to the session that it had.

const RETRY_MS = [200, 500, 1000, 2000, 4000];
const MOST_BUFFERED = 2;  // frames that may wait in the browser before further ones are dropped

class Link {
  /** @param on has welcome(message), answer(message), lost(), ended(message). */
  constructor(on) {
    this.on = on;
    this.socket = null;
    this.session = "";
    this.offset = 0;
    this.tries = 0;
    this.over = true;
    this.dropped = 0;
  }

  begin(hello) {
    this.hello = hello;
    this.session = "";
    this.offset = this.tries = this.dropped = 0;
    this.over = false;
    this.open();
  }

  open() {
    const url = new URL("live", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.socket = socket;
    let refused = null;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.send({ type: "hello", ...this.hello, session: this.session });
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      const message = JSON.parse(event.data);
      if (message.type === "welcome") {
        this.session = message.session;
        this.tries = 0;
        this.next = message.next_frame;
        this.ready = true;
        this.on.welcome(message);
      } else {
        if (message.type === "refused") refused = message;
        this.on.answer(message);
      }
    };
    socket.onclose = (event) => {
      if (socket !== this.socket || this.over) return;
      this.ready = false;
      if (event.code >= 4400 && event.code < 4600 || event.code === 1009 || this.tries >= 12) {
        this.over = true;
        this.on.ended(refused ? refused.message : event.reason || "The connection is lost.");
        return;
      }
      this.on.lost();
      setTimeout(() => this.over || this.open(), RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)]);
    };
  }

  send(message) {
    if (this.socket && this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** Send a frame, unless it is not newer than what the server has or others still wait. */
  async frame(number, blob) {
    if (!this.ready || number < this.next) return false;
    if (this.socket.bufferedAmount > MOST_BUFFERED * blob.size) return this.dropped++, false;
    this.next = number + 1;
    const socket = this.socket, jpeg = new Uint8Array(await blob.arrayBuffer()), data = new Uint8Array(4 + jpeg.length);
    new DataView(data.buffer).setUint32(0, number);
    data.set(jpeg, 4);
    if (socket !== this.socket || socket.readyState !== WebSocket.OPEN) return false;
    socket.send(data);
    return true;
  }

  end() {
    this.over = true;
    this.ready = false;
    this.send({ type: "bye" });
    if (this.socket) this.socket.close(1000);
  }
}
