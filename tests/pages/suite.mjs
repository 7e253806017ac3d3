// The pages in a real Chromium, with people who log in at a real provider, and a real psql that waits.
//
// ROOT (the repository), SCRATCH (an empty folder), SALLYPORT (the program) and MODULES (a node_modules) must be in the
// environment. Arguments: names of behaviours, none: all. Screenshots are kept in SCRATCH/shots.
import { execFileSync, spawn } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { join } from "node:path";

const { ROOT, SCRATCH, SALLYPORT, MODULES } = process.env;
const require = createRequire(join(MODULES, "x.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const PG = join(SCRATCH, "pg");
const SHOTS = join(SCRATCH, "shots");
mkdirSync(SHOTS, { recursive: true });

// ---- helpers

function call(command, ...args) {
  return execFileSync(command, args, { encoding: "utf8", env: process.env, timeout: 120000 });
}

function env(file) {
  const pairs = readFileSync(file, "utf8").split("\n").filter((line) => line.includes("="));
  return Object.fromEntries(pairs.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function same(got, wanted, what = "") {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what} got ${a}, wanted ${b}`);
}

async function until(what, condition, seconds = 10) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// ---- what is under test

class World {
  async start() {
    call(join(ROOT, "scripts/pg"), "start", PG);
    this.dir = join(SCRATCH, "gateway");
    const policies = join(SCRATCH, "policies");
    mkdirSync(policies, { recursive: true });
    call("sh", "-c", `cp "${ROOT}"/tests/policies/*.cedar "${policies}/"`);
    writeFileSync(
      join(policies, "pages.cedar"),
      `@id("keeper-decides")
@description("Deleting a customer takes a keeper.")
@approval("keeper")
@width("session, 1h")
forbid (principal, action == Action::"delete", resource == Table::"shop/shop/public.customers")
unless { context.approved };
`,
    );
    process.env.POLICIES = policies;
    call(join(ROOT, "scripts/gateway"), "config", this.dir, PG);
    this.known = env(join(this.dir, "env"));
    this.url = `https://localhost:${this.known.GW_ADMIN_PORT}`;
    const port = await freePort();
    this.issuer = `http://127.0.0.1:${port}`;
    await this.startProvider(port);
    writeFileSync(join(this.dir, "login-secret"), "a secret between two programs");
    appendFileSync(
      join(this.dir, "sallyport.toml"),
      `
[[issuer]]
name = "people"
issuer = "${this.issuer}"
audience = "sallyport-api"

[login]
issuer = "people"
client_id = "sallyport"
client_secret = "file:login-secret"
url = "${this.url}"
`,
    );
    call(join(ROOT, "scripts/gateway"), "serve", this.dir);
    this.browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
    });
  }

  startProvider(port) {
    const script = join(MODULES, "..", "provider.mjs");
    this.provider = spawn(process.execPath, [script], {
      env: { ...process.env, PROVIDER_PORT: port, PROVIDER_REDIRECT: this.url },
      stdio: ["ignore", "pipe", "ignore"],
    });
    return new Promise((resolve, reject) => {
      this.provider.stdout.on("data", (data) => String(data).includes("listening") && resolve());
      this.provider.on("exit", () => reject(new Error("the provider did not start")));
    });
  }

  async stop() {
    await this.browser?.close();
    this.provider?.removeAllListeners("exit");
    this.provider?.kill();
    if (existsSync(join(this.dir ?? "", "pid"))) call(join(ROOT, "scripts/gateway"), "stop", this.dir);
    call(join(ROOT, "scripts/pg"), "stop", PG);
    const log = readFileSync(join(this.dir, "log/gateway.log"), "utf8");
    if (log.includes("panicked")) throw new Error(log.slice(log.indexOf("panicked") - 200).slice(0, 600));
  }

  cli(...args) {
    return call(SALLYPORT, "-c", join(this.dir, "sallyport.toml"), ...args);
  }

  token(subject, ...more) {
    return call(join(ROOT, "scripts/gateway"), "token", this.dir, subject, ...more).trim();
  }

  // A real psql with one statement; what it printed, when it ends.
  psql(statement, subject = "robot", token = this.token(subject, "--role", "app")) {
    const url = `host=localhost port=${this.known.GW_PORT} user=${subject} dbname=shop sslmode=verify-full sslrootcert=${this.known.GW_CA}`;
    const child = spawn("psql", [url, "-X", "-q", "-A", "-t", "-c", statement], { env: { ...process.env, PGPASSWORD: token } });
    let [out, err] = ["", ""];
    child.stdout.on("data", (data) => (out += data));
    child.stderr.on("data", (data) => (err += data));
    const ended = new Promise((resolve) => child.on("close", (status) => resolve({ status, out, err })));
    return { child, ended };
  }

  customer() {
    const known = env(join(PG, "env"));
    const url = `host=127.0.0.1 port=${known.PG_PORT} user=${known.PG_SUPERUSER} dbname=shop password=${known.PG_SUPERPASSWORD}`;
    const made = call("psql", url, "-XqAtc", "INSERT INTO customers (name, email) VALUES ('page', gen_random_uuid() || '@example.com') RETURNING id");
    return made.trim();
  }

  waiting() {
    return JSON.parse(this.cli("approvals", "list", "--json"));
  }

  // A DELETE that waits: its request, and the psql behind it.
  async held(more = "", subject = "robot", token = undefined) {
    const before = new Set(this.waiting().map((one) => one.id));
    const id = this.customer();
    const psql = this.psql(`DELETE FROM customers WHERE id = ${id}${more}`, subject, token);
    const request = await until("it waits", () => this.waiting().find((one) => !before.has(one.id)));
    return { ...psql, request, id };
  }

  count(id) {
    const known = env(join(PG, "env"));
    const url = `host=127.0.0.1 port=${known.PG_PORT} user=${known.PG_SUPERUSER} dbname=shop password=${known.PG_SUPERPASSWORD}`;
    return Number(call("psql", url, "-XqAtc", `SELECT count(*) FROM customers WHERE id = ${id}`));
  }
}

// Somebody in front of a browser. Nothing may be printed to the console, be blocked, or come from elsewhere.
class Somebody {
  static async at(world, name, options = {}) {
    const one = new Somebody();
    one.world = world;
    one.name = name;
    one.complaints = [];
    one.context = await world.browser.newContext({ ignoreHTTPSErrors: true, timezoneId: "Asia/Tokyo", locale: "en-GB", ...options });
    one.page = await one.context.newPage();
    one.page.on("console", (message) => {
      if (["error", "warning"].includes(message.type()) && message.location().url.startsWith(world.url)) one.complaints.push(message.text());
    });
    one.page.on("pageerror", (error) => one.complaints.push(String(error)));
    one.page.on("request", (request) => {
      // The provider's own pages may ask for what they like.
      const [url, page] = [request.url(), request.isNavigationRequest() ? "" : request.frame().url()];
      if (page.startsWith(world.url) && !url.startsWith(world.url)) one.complaints.push(`asks ${url}`);
    });
    one.page.on("requestfailed", (request) => {
      const why = request.failure()?.errorText ?? "";
      if (request.url().startsWith(world.url) && why !== "net::ERR_ABORTED") one.complaints.push(`${request.url()}: ${why}`);
    });
    return one;
  }

  static async logged(world, name, options = {}) {
    const one = await Somebody.at(world, name, options);
    await one.login("/");
    return one;
  }

  async go(path) {
    return this.page.goto(this.world.url + path);
  }

  async login(path) {
    await this.go(path);
    if (this.page.url().startsWith(this.world.url)) await this.page.getByRole("link", { name: "Log in with your organisation" }).click();
    await this.page.waitForURL(`${this.world.issuer}/**`);
    await this.page.fill("input[name=login]", this.name);
    await this.page.fill("input[name=password]", "any");
    await this.page.click("button[type=submit]");
    await this.page.waitForURL(`${this.world.url}/**`);
  }

  async shot(name) {
    await this.page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
  }

  // No serious finding of axe-core.
  async accessible(what) {
    await this.page.evaluate(axe);
    const found = await this.page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    const serious = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
    same(serious.map((one) => `${one.id}: ${one.nodes.map((node) => node.target).join(" ")}`), [], what);
  }

  async done() {
    same(this.complaints, [], `${this.name}'s console`);
    await this.context.close();
  }
}

// ---- behaviours

const behaviours = {
  async a_reviewer_approves_what_a_real_psql_waits_for(world) {
    const ann = await Somebody.at(world, "ann");
    const held = await world.held();
    // The link of a message: log in first, and come back to the request.
    await ann.login(`/approvals/${held.request.id}`);
    same(ann.page.url(), `${world.url}/approvals/${held.request.id}`);
    same(await ann.page.locator("pre.statement").textContent(), `DELETE FROM customers WHERE id = ${held.id}`);
    await ann.shot("approval");
    await ann.accessible("a request");
    await ann.page.fill("#reason", "ticket 7");
    await ann.page.getByRole("button", { name: "Approve" }).click();
    await ann.page.waitForSelector("h1:has-text('was approved')");
    const { status, err } = await held.ended;
    same(status, 0, err);
    same(world.count(held.id), 0);
    await ann.shot("approved");
    const log = world.cli("audit", "tail", "--json", "-n", "200").trim().split("\n").map((line) => JSON.parse(line));
    const step = log.find((entry) => entry.event === "approval" && entry.step === "approved");
    same([step.by, step.reason, step.digest], ["people/ann", "ticket 7", held.request.digest]);
    await ann.done();
  },

  async the_queue_follows_by_itself(world) {
    const ann = await Somebody.logged(world, "ann");
    await ann.go("/approvals");
    await ann.page.waitForSelector("text=Nothing waits");
    await ann.accessible("an empty queue");
    const held = await world.held();
    await ann.page.waitForSelector(`a[href='/approvals/${held.request.id}']`, { timeout: 10000 });
    await ann.shot("queue");
    await ann.accessible("a queue");
    world.cli("approvals", "deny", held.request.id, "--reason", "no");
    await ann.page.waitForSelector("text=Nothing waits", { timeout: 10000 });
    const { status, err } = await held.ended;
    same([status, err.includes("denied by local:")], [1, true], err);
    await ann.done();
  },

  async a_request_page_shows_that_somebody_else_has_decided(world) {
    const [ann, bob] = [await Somebody.logged(world, "ann"), await Somebody.logged(world, "bob")];
    const held = await world.held();
    await ann.go(`/approvals/${held.request.id}`);
    await bob.go(`/approvals/${held.request.id}`);
    await bob.page.fill("#reason", "half a reason");
    await ann.page.getByRole("button", { name: "Deny" }).click();
    await ann.page.waitForSelector("h1:has-text('was denied')");
    await bob.page.waitForSelector("h1:has-text('was denied')", { timeout: 10000 });
    same((await held.ended).status, 1);
    same(world.count(held.id), 1);
    await ann.done();
    await bob.done();
  },

  async two_who_decide_at_once_have_one_outcome(world) {
    const people = [await Somebody.logged(world, "ann"), await Somebody.logged(world, "bob")];
    const held = await world.held();
    for (const one of people) await one.go(`/approvals/${held.request.id}`);
    // Their pages do not hear of each other before they have sent.
    const sent = [people[0].page.getByRole("button", { name: "Approve" }), people[1].page.getByRole("button", { name: "Deny" })];
    await Promise.allSettled(sent.map((button) => button.click({ noWaitAfter: true })));
    const { status } = await held.ended;
    const found = world.cli("audit", "tail", "--session", held.request.session, "--json", "-n", "100").trim().split("\n").map((line) => JSON.parse(line));
    const steps = found.filter((entry) => entry.event === "approval" && entry.step !== "requested").map((entry) => entry.step);
    same(steps.length, 1);
    same([steps[0] === "approved", world.count(held.id)], [status === 0, status === 0 ? 0 : 1], steps[0]);
    for (const one of people) await one.context.close();
  },

  async nobody_decides_on_their_own(world) {
    const held = await world.held("", "fault", world.token("fault", "--role", "app", "--kind", "human", "--claim", "sponsor=people/bob"));
    const bob = await Somebody.logged(world, "bob");
    await bob.go(`/approvals/${held.request.id}`);
    await bob.page.waitForSelector("text=the claim sponsor of dev/fault names people/bob");
    same(await bob.page.getByRole("button", { name: "Approve" }).count(), 0);
    await bob.shot("own");
    world.cli("approvals", "deny", held.request.id);
    await held.ended;
    await bob.done();
  },

  async an_auditor_looks_and_changes_nothing(world) {
    const aud = await Somebody.logged(world, "aud");
    const held = await world.held();
    await aud.go(`/approvals/${held.request.id}`);
    await aud.page.waitForSelector("text=You look on");
    same(await aud.page.locator("form:not(.me):not([method=dialog]) button").count(), 0);
    // Not by hand either, with the form of their own logout.
    const refused = await aud.page.evaluate(async (id) => {
      const csrf = document.querySelector("form.me [name=csrf]").value;
      const body = new URLSearchParams({ csrf, reason: "" });
      const page = await fetch(`/approvals/${id}/approve`, { method: "POST", body });
      const api = await fetch(`/api/v1/approvals/${id}/approve`, { method: "POST", headers: { "X-CSRF-Token": csrf } });
      const without = await fetch(`/api/v1/approvals/${id}/approve`, { method: "POST" });
      return [page.status, api.status, without.status];
    }, held.request.id);
    same(refused, [403, 403, 403]);
    aud.complaints = aud.complaints.filter((text) => !text.includes("403"));
    world.cli("approvals", "deny", held.request.id);
    await held.ended;
    await aud.go("/sessions");
    await aud.accessible("sessions");
    await aud.shot("sessions");
    await aud.page.locator("tbody a.main").first().click();
    await aud.page.waitForSelector("h2:has-text('Timeline')");
    await aud.accessible("a session");
    await aud.shot("session");
    await aud.done();
  },

  async who_has_no_role_sees_nothing(world) {
    const stranger = await Somebody.logged(world, "stranger");
    for (const path of ["/", "/approvals", "/sessions"]) {
      const answer = await stranger.go(path);
      same(answer.status(), 403, path);
    }
    await stranger.accessible("a refusal");
    await stranger.context.close();
  },

  async a_session_is_ended_from_its_page(world) {
    const ada = await Somebody.logged(world, "ada");
    const psql = world.psql("SELECT pg_sleep(60)", "sleeper", world.token("sleeper", "--role", "app"));
    await ada.go("/");
    const link = ada.page.locator("a.main:has-text('dev/sleeper')");
    await link.waitFor({ timeout: 15000 });
    await ada.shot("now");
    await ada.accessible("now");
    await link.click();
    await ada.page.locator("summary:has-text('End this session')").click();
    await ada.page.getByRole("button", { name: "End it now" }).click();
    const { status, err } = await psql.ended;
    same([status !== 0, /terminat|ended|kill/i.test(err)], [true, true], err);
    await ada.page.waitForSelector("text=End this session", { state: "detached", timeout: 15000 });
    await ada.done();
  },

  async the_keyboard_is_enough(world) {
    const ann = await Somebody.logged(world, "ann");
    const held = await world.held();
    await ann.go("/");
    const { page } = ann;
    await page.keyboard.press("Tab");
    same(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
    await page.keyboard.press("g");
    await page.keyboard.press("a");
    await page.waitForURL("**/approvals");
    await page.waitForSelector("[data-row]");
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await page.waitForURL("**/approvals/*");
    await page.keyboard.press("?");
    await page.waitForSelector("dialog[open]");
    await page.keyboard.press("Escape");
    await page.keyboard.press("r");
    await page.keyboard.type("by hand, r and a and g as well");
    for (let presses = 0; presses < 12; presses++) {
      await page.keyboard.press("Tab");
      if ((await page.evaluate(() => document.activeElement.textContent.trim())) === "Approve") break;
    }
    await page.keyboard.press("Enter");
    await page.waitForSelector("h1:has-text('was approved')");
    same((await held.ended).status, 0);
    await ann.done();
  },

  async hostile_text_is_text(world) {
    const text = `/* <script>alert(1)</script> <img src=x onerror=alert(2)> " onmouseover="alert(3) \u202e \u200b */`;
    const held = await world.held(` ${text}`);
    const ann = await Somebody.logged(world, "ann");
    ann.page.on("dialog", (dialog) => ann.complaints.push(`a dialog: ${dialog.message()}`));
    for (const path of ["/", "/approvals", `/approvals/${held.request.id}`]) {
      await ann.go(path);
      await ann.page.waitForSelector("#live");
      same(await ann.page.locator("main script, main img").count(), 0, path);
    }
    const shown = await ann.page.locator("pre.statement").textContent();
    same([shown.includes("<script>alert(1)</script>"), shown.includes("⟦U+202E⟧"), shown.includes("\u202e")], [true, true, false]);
    await ann.page.waitForSelector("text=characters that cannot be seen");
    await ann.shot("hostile");
    world.cli("approvals", "deny", held.request.id);
    await held.ended;
    await ann.done();
  },

  async on_a_phone_and_in_the_dark(world) {
    const held = await world.held();
    const options = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, colorScheme: "dark" };
    const ann = await Somebody.logged(world, "ann", options);
    await ann.go(`/approvals/${held.request.id}`);
    const { scroll, width } = await ann.page.evaluate(() => ({ scroll: document.documentElement.scrollWidth, width: innerWidth }));
    same(scroll <= width, true, "nothing is wider than the screen");
    await ann.accessible("a request on a phone, in the dark");
    await ann.shot("phone");
    await ann.page.getByRole("button", { name: "Approve" }).tap();
    await ann.page.waitForSelector("h1:has-text('was approved')");
    same((await held.ended).status, 0);
    await ann.done();
  },

  async times_are_the_viewers_with_utc_at_hand(world) {
    const held = await world.held();
    const ann = await Somebody.logged(world, "ann");
    await ann.go(`/approvals/${held.request.id}`);
    const time = ann.page.locator("p.lead time").first();
    const [at, title] = [await time.getAttribute("datetime"), await time.getAttribute("title")];
    same(title, `${at.slice(0, 19).replace("T", " ")} UTC`);
    const hour = String((Number(at.slice(11, 13)) + 9) % 24).padStart(2, "0");
    same((await time.textContent()).includes(`${hour}:${at.slice(14, 16)}`), true, await time.textContent());
    world.cli("approvals", "deny", held.request.id);
    await held.ended;
    await ann.done();
  },

  async a_form_works_without_scripts(world) {
    const held = await world.held();
    const ann = await Somebody.logged(world, "ann", { javaScriptEnabled: false });
    await ann.go(`/approvals/${held.request.id}`);
    await ann.page.fill("#reason", "no scripts");
    await ann.page.click("button.approve");
    await ann.page.waitForSelector("h1");
    same((await held.ended).status, 0);
    await ann.done();
  },

  async logging_out_is_out_there_as_well(world) {
    const ann = await Somebody.logged(world, "ann");
    await ann.page.getByRole("button", { name: "Log out" }).click();
    await ann.page.waitForURL(`${world.issuer}/**`);
    await ann.page.locator("button[value=yes], button[name=logout]").first().click();
    await ann.page.waitForURL(`${world.url}/login/out**`);
    await ann.go("/");
    await ann.page.waitForSelector("text=Log in with your organisation");
    await ann.page.getByRole("link", { name: "Log in with your organisation" }).click();
    await ann.page.waitForSelector("input[name=login]");
    await ann.context.close();
  },

  async the_providers_new_keys_are_taken_up(world) {
    const before = await Somebody.logged(world, "bob");
    await fetch(`${world.issuer}/rotate`, { method: "POST" });
    const after = await Somebody.logged(world, "bob");
    await after.page.waitForSelector("text=people/bob");
    await before.done();
    await after.done();
  },

  async a_token_of_the_development_issuer_logs_in(world) {
    const one = await Somebody.at(world, "dev");
    await one.go("/approvals");
    await one.accessible("the login");
    await one.shot("login");
    await one.page.fill("#token", world.token("carl", "--role", "reviewer", "--kind", "human"));
    await one.page.getByRole("button", { name: "Log in" }).click();
    await one.page.waitForSelector("h1:has-text('Approvals')");
    await one.page.waitForSelector("text=dev/carl");
    await one.done();
  },

  async nobody_frames_the_pages(world) {
    const answer = await (await Somebody.logged(world, "ann")).go("/");
    const headers = answer.headers();
    same(headers["x-frame-options"], "DENY");
    for (const part of ["default-src 'none'", "frame-ancestors 'none'", "script-src 'self'", "form-action 'self'", "base-uri 'none'"]) {
      same(headers["content-security-policy"].includes(part), true, part);
    }
    same([headers["cache-control"], headers["x-content-type-options"]], ["no-store", "nosniff"]);
  },
};

// ---- run

const wanted = process.argv.slice(2);
const world = new World();
let failed = 0;
try {
  await world.start();
  for (const [name, behaviour] of Object.entries(behaviours)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    try {
      await behaviour(world);
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}: ${String(error.message).split("\n").slice(0, 6).join(" | ")}`);
      if (process.env.VERBOSE) console.log(error.stack);
      for (const context of world.browser.contexts()) {
        for (const [at, page] of context.pages().entries()) await page.screenshot({ path: join(SHOTS, `failed-${name}-${at}.png`) }).catch(() => {});
        await context.close();
      }
      for (const one of world.waiting()) world.cli("approvals", "deny", one.id);
    }
  }
} catch (error) {
  failed += 1;
  console.log(`FAIL start: ${error.stack}`);
} finally {
  await world.stop().catch((error) => {
    failed += 1;
    console.log(`FAIL stop: ${error.message}`);
  });
}
process.exit(failed === 0 ? 0 : 1);
