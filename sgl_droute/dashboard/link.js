// Whether the page hears from the router: a word in the head, and a banner when it does not.

import { attr, byId, show, write } from "./dom.js";
import { askKey } from "./key.js";
import { alert } from "./notices.js";
import { counting } from "./words.js";

// Messages that may be missing before the page says so.
const MISSING = 3;
const WORDS = { connecting: "Connecting", live: "Live", lost: "Not connected", locked: "Key needed" };

/** Shows the state of a `Follower`. */
export class Link {
  constructor() {
    this.state = { name: "connecting" };
    this.heard = 0; // Date.now() of the last message
    this.interval = 1;
    this.down = false;
    this.reconnect = () => {};
    byId("banner-button").addEventListener("click", () => {
      if (this.state.name === "locked") askKey(this.state.error);
      else this.reconnect();
    });
  }

  /** Take a state of the follower. */
  set(state) {
    if (state.name === "live" && this.down) {
      alert("The connection to the router is back.");
      this.down = false;
    }
    if (state.name === "lost" && !this.down) {
      alert("The connection to the router is lost.");
      this.down = true;
    }
    if (state.name === "locked" && this.state.name !== "locked") askKey(state.error);
    this.state = state;
    this.draw();
  }

  hear() {
    this.heard = Date.now();
  }

  /** Bring times up to date; to be called every second. */
  draw() {
    const age = (Date.now() - this.heard) / 1000;
    const silent = this.state.name === "live" && age > this.interval * MISSING + 1;
    const shown = silent ? "lost" : this.state.name;
    attr(byId("link"), "data-state", shown);
    write(byId("link-text"), silent ? "Silent" : WORDS[shown]);
    const stale = shown === "lost" || (shown === "connecting" && (this.down || this.heard > 0));
    document.body.classList.toggle("stale", stale || (shown === "locked" && this.heard > 0));
    this.drawBanner(shown, age, silent, stale);
  }

  drawBanner(shown, age, silent, stale) {
    show(byId("banner"), stale || shown === "locked");
    if (shown === "locked") {
      write(byId("banner-title"), "The router asks for an admin key.");
      write(byId("banner-text"), this.heard ? this.told(age) : "Nothing is shown without it.");
      write(byId("banner-button"), "Enter the key");
    } else if (stale) {
      write(byId("banner-title"), silent ? "The router has gone quiet." : (this.state.error?.message ?? "Connecting again."));
      write(byId("banner-text"), `${this.told(age)}${this.next()}`);
      write(byId("banner-button"), "Try now");
    }
  }

  told(age) {
    return this.heard ? `What you see is ${counting(age)} old.` : "Nothing was received yet.";
  }

  next() {
    if (!this.state.retryAt) return "";
    return ` Next try in ${counting(Math.max(0, this.state.retryAt - Date.now()) / 1000)}.`;
  }
}
