// The field that the user types into: it grows with the text, keeps a draft
// over reloads, and offers commands after a slash.

const basics = [
  { name: 'new', description: 'Start a new conversation' },
  { name: 'stop', description: 'Stop what is running' },
  { name: 'status', description: 'Show what the agent is doing' },
  { name: 'help', description: 'List all commands' },
];

const starters = ['What can you do?', 'How is this machine doing?', 'Remind me every Monday at 9:00', '/help'];

export class Composer {
  constructor(room, say, stop) {
    this.say = say;
    this.commands = basics;
    this.draftName = 'hermes.draft.' + room;
    this.form = document.getElementById('composer');
    this.text = document.getElementById('text');
    this.sendButton = document.getElementById('send');
    this.stopButton = document.getElementById('stop');
    this.hints = document.getElementById('hints');
    this.chosen = -1;
    this.text.value = sessionStorage.getItem(this.draftName) || '';
    this.text.addEventListener('input', () => this.#typed());
    this.text.addEventListener('keydown', (e) => this.#key(e));
    this.text.addEventListener('blur', () => setTimeout(() => { this.hints.hidden = true; }, 150));
    this.form.addEventListener('submit', (e) => { e.preventDefault(); this.#submit(); });
    this.stopButton.addEventListener('click', stop);
    this.#starters();
    this.#typed();
    if (matchMedia('(pointer: fine)').matches) this.text.focus();
  }

  busy(is) {
    this.stopButton.hidden = !is;
  }

  // restore gives a text back that was not accepted.
  restore(text) {
    this.text.value = this.text.value ? text + '\n' + this.text.value : text;
    this.#typed();
    this.text.focus();
  }

  #starters() {
    const box = document.getElementById('starters');
    for (const s of starters) {
      const b = document.createElement('button');
      b.type = 'button';
      b.textContent = s;
      b.addEventListener('click', () => this.say(s));
      box.append(b);
    }
  }

  #typed() {
    sessionStorage.setItem(this.draftName, this.text.value);
    this.text.style.height = 'auto';
    this.text.style.height = this.text.scrollHeight + 'px';
    this.sendButton.disabled = this.text.value.trim() === '';
    this.#hint();
  }

  #hint() {
    const typed = /^\/(\S*)$/.exec(this.text.value);
    const fits = typed ? this.commands.filter((c) => c.name.startsWith(typed[1])).slice(0, 8) : [];
    this.hints.hidden = fits.length === 0;
    this.chosen = fits.length && typed[1] ? 0 : -1;
    this.hints.replaceChildren(...fits.map((c, i) => this.#hintLine(c, i)));
    this.#mark();
  }

  #hintLine(command, i) {
    const li = document.createElement('li');
    li.role = 'option';
    li.id = 'hint-' + i;
    const name = document.createElement('b');
    name.textContent = '/' + command.name;
    const what = document.createElement('span');
    what.textContent = command.description;
    li.append(name, what);
    li.addEventListener('mousedown', (e) => { e.preventDefault(); this.#complete(command.name); });
    return li;
  }

  #mark() {
    [...this.hints.children].forEach((li, i) => li.setAttribute('aria-selected', String(i === this.chosen)));
    if (this.chosen >= 0) this.text.setAttribute('aria-activedescendant', 'hint-' + this.chosen);
    else this.text.removeAttribute('aria-activedescendant');
  }

  #complete(name) {
    this.text.value = '/' + name + ' ';
    this.#typed();
    this.text.focus();
  }

  #key(e) {
    const count = this.hints.hidden ? 0 : this.hints.children.length;
    if (count && (e.key === 'ArrowDown' || e.key === 'ArrowUp')) {
      e.preventDefault();
      this.chosen = (this.chosen + (e.key === 'ArrowDown' ? 1 : count - (this.chosen < 0 ? 0 : 1))) % count;
      this.#mark();
    } else if (count && e.key === 'Tab') {
      e.preventDefault();
      this.#complete(this.#name(Math.max(0, this.chosen)));
    } else if (e.key === 'Escape') {
      this.hints.hidden = true;
    } else if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
      // On a touch keyboard Enter is the send key too.
      e.preventDefault();
      if (count && this.chosen >= 0 && this.text.value !== '/' + this.#name(this.chosen)) this.#complete(this.#name(this.chosen));
      else this.#submit();
    }
  }

  #name(i) {
    return this.hints.children[i].firstChild.textContent.slice(1);
  }

  #submit() {
    const text = this.text.value.trim();
    if (!text) return;
    this.text.value = '';
    this.#typed();
    this.say(text);
  }
}
