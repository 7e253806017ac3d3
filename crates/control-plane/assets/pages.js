// The pages' own script: times in the viewer's zone, what has changed, keys. Every page works without it.
"use strict";
(() => {
  const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

  // A time is written in UTC; its title keeps that.
  function times() {
    const today = new Date().toDateString();
    for (const time of document.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const text = (at.toDateString() === today ? clock : full).format(at);
      if (time.textContent !== text && !time.closest("[data-left]")) time.textContent = text;
    }
    for (const left of document.querySelectorAll("[data-left] time[datetime]")) {
      const seconds = Math.round((new Date(left.dateTime) - Date.now()) / 1000);
      const text = seconds <= 0 ? "now" : seconds < 90 ? `in ${seconds} s` : seconds < 5400 ? `in ${Math.round(seconds / 60)} min` : `in ${Math.round(seconds / 3600)} h`;
      if (left.textContent !== text) left.textContent = text;
    }
  }

  // What has changed is fetched by the elements that listen for it. A page that nobody looks at does not ask.
  let source = null;
  function listen() {
    if (!("events" in document.body.dataset)) return;
    if (document.hidden) {
      source?.close();
      source = null;
      return;
    }
    if (source) return;
    source = new EventSource(`/events?seen=${encodeURIComponent(document.body.dataset.events)}`);
    for (const name of ["approvals", "sessions"]) {
      source.addEventListener(name, () => document.body.dispatchEvent(new Event(name)));
    }
    source.addEventListener("error", () => {
      // The login has ended, or the gateway was away for too long: it is not tried again by itself.
      if (source?.readyState !== EventSource.CLOSED) return;
      source = null;
      setTimeout(listen, 15000);
    });
  }

  function rows() {
    return [...document.querySelectorAll("[data-row] a.main")];
  }

  function step(by) {
    const all = rows();
    if (all.length === 0) return;
    const at = all.indexOf(document.activeElement);
    const next = at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by));
    all[next].focus();
  }

  let going = false;
  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input, textarea, select, dialog[open]")) return;
    const to = going && document.querySelector(`#nav a[data-key="${CSS.escape(event.key)}"]`);
    going = false;
    if (to) to.click();
    else if (event.key === "g") going = true;
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") document.querySelector("[data-search]")?.focus();
    else if (event.key === "r") document.querySelector("[data-reason]")?.focus();
    else if (event.key === "?") document.getElementById("keys")?.showModal();
    else return;
    event.preventDefault();
  }

  document.addEventListener("keydown", key);
  document.addEventListener("htmx:after:swap", times);
  document.addEventListener("visibilitychange", listen);
  setInterval(times, 1000);
  times();
  listen();
})();
