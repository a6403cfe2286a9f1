// What the user sent and the gateway has not confirmed. It is kept for the tab,
// so that a reload loses nothing, and is sent in order, each message with the
// same id until it is accepted.

export class Outbox {
  constructor(room, send, changed) {
    this.store = 'hermes.outbox.' + room;
    this.send = send;
    this.changed = changed;
    this.sending = false;
    this.messages = this.#load();
  }

  #load() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(this.store) || '[]');
      return kept.map((m) => ({ ...m, at: new Date(m.at), state: m.state === 'refused' ? 'refused' : 'waiting' }));
    } catch {
      return []; // unreadable: nothing that we wrote
    }
  }

  #save() {
    const open = this.messages.filter((m) => m.state !== 'accepted');
    try {
      sessionStorage.setItem(this.store, JSON.stringify(open));
    } catch {
      // Full or forbidden: the messages stay on the page.
    }
    this.changed();
  }

  add(text, button) {
    this.messages.push({ id: newID(), text, button, at: new Date(), state: 'waiting', reason: '' });
    this.#save();
    this.flush();
  }

  // flush sends what waits, oldest first.
  async flush() {
    if (this.sending) return;
    this.sending = true;
    clearTimeout(this.timer);
    try {
      for (let m; (m = this.messages.find((x) => x.state === 'waiting'));) {
        m.state = 'sending';
        this.changed();
        try {
          await this.send(m);
          m.state = 'accepted';
          m.reason = '';
        } catch (failure) {
          m.reason = failure.message;
          m.state = failure.passing === false ? 'refused' : 'waiting';
          if (m.state === 'waiting') {
            this.timer = setTimeout(() => this.flush(), 3000);
            return;
          }
        } finally {
          this.#save();
        }
      }
    } finally {
      this.sending = false;
    }
  }

  // connected tells whether the gateway is there; what waits goes at once.
  connected(is) {
    if (is && this.messages.some((m) => m.state === 'waiting')) this.flush();
  }

  retry(message) {
    message.state = 'waiting';
    message.reason = '';
    this.#save();
    this.flush();
  }

  drop(message) {
    this.forget((m) => m === message);
    this.#save();
  }

  forget(which) {
    if (this.messages.some(which)) this.messages = this.messages.filter((m) => !which(m));
  }
}

function newID() {
  const b = crypto.getRandomValues(new Uint8Array(16));
  return 'web-' + Array.from(b, (x) => x.toString(16).padStart(2, '0')).join('');
}
