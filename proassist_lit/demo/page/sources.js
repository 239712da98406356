"use strict";
// What is watched: a camera or a video file, shown in a <video> and given away as JPEGs.

const MOST_PIXELS = 640;  // longer side of what is sent: encoders look at less

class Source {
  /**
   * @param video the element it is shown in.
   * @param time gives seconds since it began.
   * @param release lets go of the camera or the file.
   */
  constructor(video, time, release) {
    this.video = video;
    this.time = time;
    this.release = release;
    this.canvas = document.createElement("canvas");
    this.timer = 0;
    this.last = -1;
    this.busy = false;
  }

  static async camera(video) {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 } }, audio: false });
    video.srcObject = stream;
    await video.play();
    const began = performance.now();
    return new Source(video, () => (performance.now() - began) / 1000, () => {
      stream.getTracks().forEach((track) => track.stop());
      video.srcObject = null;
    });
  }

  static async file(video, file) {
    const url = URL.createObjectURL(file);
    video.srcObject = null;
    video.src = url;
    try {
      await video.play();
    } catch (error) {
      URL.revokeObjectURL(url);
      throw new Error(`This browser cannot play ${file.name}: ${error.message}`);
    }
    return new Source(video, () => video.currentTime, () => {
      video.pause();
      video.removeAttribute("src");
      video.load();
      URL.revokeObjectURL(url);
    });
  }

  /** Call `give(number, blob)` for every frame in its time; one at a time, late ones never. */
  start(fps, maxBytes, give) {
    const look = () => {
      const number = Math.floor(this.time() * fps + 1e-6);
      if (this.busy || number <= this.last || this.video.readyState < 2) return;
      this.last = number;
      this.busy = true;
      this.jpeg(maxBytes).then((blob) => blob && this.timer && give(number, blob)).finally(() => (this.busy = false));
    };
    this.timer = setInterval(look, 1000 / fps / 8);
    look();
  }

  async jpeg(maxBytes) {
    const { videoWidth: width, videoHeight: height } = this.video, scale = Math.min(1, MOST_PIXELS / Math.max(width, height, 1));
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
    this.canvas.getContext("2d").drawImage(this.video, 0, 0, this.canvas.width, this.canvas.height);
    for (const quality of [0.9, 0.7, 0.4]) {
      const blob = await new Promise((done) => this.canvas.toBlob(done, "image/jpeg", quality));
      if (blob && blob.size <= maxBytes) return blob;
    }
    return null;
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.release();
  }
}
