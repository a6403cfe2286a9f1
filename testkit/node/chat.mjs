// Drives the chat and the status page with a headless Chromium. The Go side
// plays the gateway: each `step` line on stdout asks it to do something, and a
// line on stdin says that it has.
import assert from 'node:assert/strict';
import readline from 'node:readline';
import { chromium } from 'playwright-core';

const [executablePath, base, key, shots, profile] = process.argv.slice(2);
const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const step = async (name) => {
  console.log('step ' + name);
  await answers.next();
};

const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  viewport: { width: 1280, height: 800 },
  colorScheme: 'light',
});
context.setDefaultTimeout(30000);
const page = context.pages()[0] ?? await context.newPage();
const complaints = [];
page.on('pageerror', (e) => complaints.push('error: ' + e.message));
page.on('console', (m) => {
  // Refused and failed requests are part of the test.
  if (m.type() === 'error' && !/Failed to load resource/.test(m.text())) complaints.push(m.text());
});
page.on('request', (r) => {
  if (!r.url().startsWith(base) && !r.url().startsWith('data:')) complaints.push('foreign request: ' + r.url());
});
const sizes = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };
const shoot = async (name) => {
  for (const [size, viewport] of Object.entries(sizes)) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: `${shots}/${name}-${size}-${colorScheme}.png` });
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${name} is ${wide} px too wide on ${size}`);
  }
  await page.setViewportSize(sizes.desktop);
  await page.emulateMedia({ colorScheme: 'light' });
};
const link = (state) => page.waitForSelector(`#link[data-state="${state}"]`);
const text = page.locator('#text');
const say = async (words) => {
  await text.fill(words);
  await text.press('Enter');
};
const mine = (words) => page.locator('.msg.user', { hasText: words });

const markdown = [
  ['plain', '<p>plain</p>'],
  ['a\nb', '<p>a<br>b</p>'],
  ['**b** *i* __b__ _i_ ~~d~~ `c`', '<p><strong>b</strong> <em>i</em> <strong>b</strong> <em>i</em> <del>d</del> <code>c</code></p>'],
  ['***both***', '<p><strong><em>both</em></strong></p>'],
  ['snake_case_name and 2*3*4', '<p>snake_case_name and 2<em>3</em>4</p>'],
  ['a * b * c', '<p>a * b * c</p>'],
  ['``a`b``', '<p><code>a`b</code></p>'],
  ['`<b>`', '<p><code>&lt;b&gt;</code></p>'],
  ['# One\n### Three #', '<h2>One</h2><h4>Three</h4>'],
  ['---', '<hr>'],
  ['> a\n> b', '<blockquote><p>a<br>b</p></blockquote>'],
  ['- a\n- b\n  - c\n- d', '<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>'],
  ['3. a\n4. b', '<ol start="3"><li>a</li><li>b</li></ol>'],
  ['- [x] done\n- [ ] open', '<ul><li><input type="checkbox" disabled=""> done</li><li><input type="checkbox" disabled=""> open</li></ul>'],
  ['```js\nlet a = "<b>";\n```', '<div><pre><code>let a = "&lt;b&gt;";</code></pre></div>'],
  ['```\nunfinished', '<div><pre><code>unfinished</code></pre></div>'],
  ['- a\n  ```\n  code\n  ```', '<ul><li>a<div><pre><code>code</code></pre></div></li></ul>'],
  ['|a|b|\n|-|-|\n|1|`x|`|', '<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>`x</td><td>`</td></tr></tbody></table></div>'],
  ['see https://example.org/a_b_c.', '<p>see <a href="https://example.org/a_b_c">https://example.org/a_b_c</a>.</p>'],
  ['[t](https://example.org "x")', '<p><a href="https://example.org/">t</a></p>'],
  ['<script>alert(1)</script>', '<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>'],
  ['[x](javascript:alert(1))', '<p>x (javascript:alert(1))</p>'],
  ['[x](JaVaScRiPt:alert(1))', '<p>x (JaVaScRiPt:alert(1))</p>'],
  ['[x](data:text/html;base64,AA)', '<p>x (data:text/html;base64,AA)</p>'],
  ['[x](//evil.example)', '<p>x (//evil.example)</p>'],
  ['![alt](https://example.org/i.png)', '<p><a href="https://example.org/i.png">alt</a></p>'],
  ['<img src=x onerror=alert(1)>', '<p>&lt;img src=x onerror=alert(1)&gt;</p>'],
  ['\\*not\\*', '<p>*not*</p>'],
];

try {
  await page.goto(base + '/');

  // The key: asked once, a wrong one is said to be wrong.
  await page.waitForSelector('#keydialog[open] input');
  await shoot('key');
  await page.fill('#keydialog input', 'wrong');
  await page.keyboard.press('Enter');
  await page.locator('#keydialog h2', { hasText: 'not accepted' }).waitFor();
  await page.fill('#keydialog input', key);
  await page.keyboard.press('Enter');
  await link('open');
  await page.locator('#empty').waitFor();
  await shoot('empty');

  // A streamed answer with tool calls.
  await say('How full is the disk?');
  await step('begin');
  await page.locator('.typing').waitFor();
  await step('tools');
  await page.locator('.tool[data-state="running"]', { hasText: '/etc/fstab' }).waitFor();
  assert.equal(await page.locator('.tool[data-state="done"]').count(), 1);
  assert.equal(await page.locator('.tool[data-state="failed"]').count(), 1);
  await page.locator('.tool summary', { hasText: 'df -h' }).click();
  await page.locator('.tool[open] pre', { hasText: 'terminal' }).waitFor();
  await step('write');
  await page.locator('.msg.live strong', { hasText: '61 % full' }).waitFor();
  await shoot('streaming');

  // A reader who comes in the middle of a turn sees where it stands.
  await page.reload();
  await page.locator('.msg.live strong', { hasText: '61 % full' }).waitFor();
  assert.equal(await page.locator('.tool').count(), 3);
  await step('end');
  await page.locator('.msg.assistant:not(.live) table').waitFor();
  await page.locator('.msg.assistant time').waitFor();
  assert.equal(await page.locator('.msg.live').count(), 0);
  assert.equal(await page.locator('table').count(), 1, 'the answer is there once');
  assert.equal(await page.locator('.text img').count(), 0, 'markup of the model is text');
  assert.equal(await page.locator('.text a').count(), 1, 'only the harmless link is a link');
  assert.equal(await page.title(), 'Hermes');
  assert.equal(await page.locator('.text ol > li ul > li').count(), 2);
  // Its tool calls stay, before the answer.
  assert.deepEqual(await page.locator('.log > .msg').evaluateAll((all) => all.map((e) => e.querySelector('.tool') ? 'tools' : e.classList.contains('user') ? 'user' : 'answer')), ['user', 'tools', 'answer']);
  await page.locator('.copy').click();
  await page.locator('.copy', { hasText: /Copied|Not copied/ }).waitFor();
  await shoot('answer');

  // An approval by button.
  await say('restart nginx');
  await step('ask');
  await page.locator('.buttons button', { hasText: 'Once' }).waitFor();
  await page.locator('.kind-question').waitFor();
  await shoot('question');
  await page.locator('.buttons button', { hasText: 'Once' }).click();
  await page.locator('.buttons .chosen', { hasText: 'Once' }).waitFor();
  assert.equal(await page.locator('.buttons button:enabled').count(), 0);
  await step('approved');
  await page.locator('.msg.assistant', { hasText: 'nginx runs again' }).first().waitFor();

  assert.equal(await page.locator('.text.plain').first().innerText(), 'Done: nginx runs again.\n  *plain*');

  // The next question is open, though its buttons send the same.
  await step('ask');
  await page.locator('.buttons button:enabled', { hasText: 'Deny' }).click();
  await page.locator('.buttons .chosen', { hasText: 'Deny' }).waitFor();
  assert.equal(await page.locator('.buttons .chosen').count(), 2);
  assert.equal(await page.locator('.buttons button:enabled').count(), 0);
  await step('approved');

  // What a schedule sends is marked as such.
  await step('cron');
  await page.locator('.kind-cron .badge', { hasText: 'Scheduled' }).waitFor();
  await page.locator('.kind-alert .badge', { hasText: 'Alert' }).waitFor();
  await shoot('cron');

  // Commands after a slash.
  await text.fill('/st');
  await page.locator('.hints li', { hasText: '/status' }).waitFor();
  assert.equal(await page.locator('.hints li').count(), 2);
  await text.fill('/');
  await shoot('hints');
  await text.press('Escape');
  await text.fill('');

  // A message that is not accepted stays, and goes when it can.
  await step('offline');
  await say('sent while the ledger was busy');
  await mine('sent while the ledger was busy').locator('.state.bad').waitFor();
  await step('online');
  await mine('sent while the ledger was busy').locator('.link-button', { hasText: 'Retry' }).click();
  await mine('sent while the ledger was busy').locator('time').waitFor();

  // The gateway goes and comes back; what was typed and sent survives, also a reload.
  await step('down');
  await page.waitForSelector('#link[data-state="reconnecting"], #link[data-state="down"]');
  await say('sent while the gateway was down');
  await text.fill('a draft');
  await mine('sent while the gateway was down').locator('.state.bad').waitFor();
  await link('down');
  await shoot('down');
  await step('up');
  await link('open');
  await mine('sent while the gateway was down').locator('time').waitFor();
  assert.equal(await mine('sent while the gateway was down').count(), 1);
  assert.equal(await text.inputValue(), 'a draft');
  await page.reload();
  await mine('sent while the gateway was down').waitFor();
  assert.equal(await text.inputValue(), 'a draft');
  assert.equal(await page.locator('table').count(), 1);

  // Reading further up is not disturbed by what arrives.
  await page.setViewportSize({ width: 390, height: 500 });
  await page.locator('#scroll').evaluate((e) => { e.scrollTop = 0; });
  await page.locator('#down').waitFor();
  await step('cron');
  await page.locator('.kind-cron').nth(1).waitFor({ state: 'attached' });
  assert.equal(await page.locator('#scroll').evaluate((e) => e.scrollTop), 0);
  await page.locator('#down').click();
  await page.locator('#down').waitFor({ state: 'hidden' });
  await page.setViewportSize(sizes.desktop);

  // The renderer, on its own: what it makes of Markdown, and of what must stay text.
  const rendered = await page.evaluate(async (texts) => {
    const { render } = await import('/assets/markdown.js');
    return texts.map((t) => {
      const box = document.createElement('div');
      box.append(render(t));
      for (const e of box.querySelectorAll('.codehead')) e.remove();
      return box.innerHTML.replace(/ (class|tabindex|target|rel)="[^"]*"/g, '');
    });
  }, markdown.map(([text]) => text));
  assert.deepEqual(rendered, markdown.map(([, want]) => want));
  const slow = await page.evaluate(async () => {
    const { render } = await import('/assets/markdown.js');
    const begin = performance.now();
    for (const piece of ['*a ', '[', '`', '**', '_a', '> ', '- ', '|-', '~~x', '<', '![']) render(piece.repeat(Math.ceil(20000 / piece.length)));
    return performance.now() - begin;
  });
  assert.ok(slow < 20000, 'hostile text takes ' + slow + ' ms');

  // The status page.
  await page.click('nav a[href="/status"]');
  await page.locator('.part[data-state="down"]', { hasText: 'Discord' }).waitFor();
  assert.equal(await page.locator('.part').count(), 7);
  await shoot('status');
  assert.ok(!(await page.content()).includes(key), 'the page shows the key');
  await step('down');
  await link('down');
  await page.locator('#failed:not([hidden])').waitFor();
  await shoot('status-down');
  await step('up');
  await link('open');
  assert.deepEqual(complaints, []);
} catch (failure) {
  await page.screenshot({ path: `${shots}/failure.png` }).catch(() => {});
  console.error(failure, complaints);
  process.exitCode = 1;
} finally {
  await context.close();
  process.exit();
}
