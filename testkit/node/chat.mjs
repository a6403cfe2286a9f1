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
  await page.locator('.msg.assistant', { hasText: 'nginx runs again' }).waitFor();

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
