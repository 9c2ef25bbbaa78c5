"use strict";
// Follows /events and draws. Whatever comes from events is put in place as text, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const LOST_MS = 6000;
  let frame = null, chosen = location.hash ? decodeURIComponent(location.hash.slice(1)) : null, seenAt = 0, charts = [], drawn = "";

  function el(tag, props, ...children) {
    const made = document.createElement(tag);
    for (const [k, v] of Object.entries(props || {})) k in made ? (made[k] = v) : made.setAttribute(k, v);
    for (const c of children) if (c !== null && c !== undefined) made.append(c);
    return made;
  }
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = (v, digits = 3) => (v === null || v === undefined ? "–" : Number(v.toPrecision(digits)).toString());
  const percent = (v) => (v === null || v === undefined ? "–" : (100 * v).toFixed(v < 0.1 ? 1 : 0) + " %");
  const usd = (v) => (v === null || v === undefined ? "–" : "$" + (Math.abs(v) < 1e-4 ? Number(v.toPrecision(3)) : v.toPrecision(3).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "")));
  const ms = (v) => (v === null || v === undefined ? "–" : v >= 1000 ? (v / 1000).toFixed(2) + " s" : (v < 10 ? Number(v.toPrecision(2)) : v.toFixed(0)) + " ms");
  const age = (s) => (s === null || s === undefined ? "–" : s < 90 ? Math.max(0, s).toFixed(0) + " s" : s < 5400 ? (s / 60).toFixed(0) + " min" : s < 172800 ? (s / 3600).toFixed(0) + " h" : (s / 86400).toFixed(0) + " d");
  const signed = (v, digits = 2) => (v > 0 ? "+" : v < 0 ? "−" : "±") + Math.abs(Number(v.toPrecision(digits)));
  const change = (now, base) => (now === null || !base ? null : now / base - 1);
  const changeText = (v) => (v === null ? "" : Math.abs(v) < 0.005 ? " (same)" : ` (${v > 0 ? "+" : "−"}${Math.abs(100 * v).toFixed(0)} %)`);
  const clock = (s) => new Date(s * 1000).toLocaleTimeString();
  const WORDS = {
    better: ["better", "good"], worse: ["worse", "bad"], level: ["no clear difference", ""],
    "no-control": ["no control group yet", "dim"], idle: ["no decisions", "dim"],
  };

  function state(name, text) { const live = $("live"); live.dataset.state = name; if (live.textContent !== text) live.textContent = text; }
  function notice(text) { $("notice").hidden = !text; if (text && $("notice").textContent !== text) $("notice").textContent = text; }
  function tile(id, big, kind, small) {
    const [, b, s] = $(id).children;
    b.textContent = big; b.className = "big " + kind; s.textContent = small;
  }

  function tiles(f) {
    const active = f.policies.filter((p) => p.learned.n > 0);
    const by = (word) => active.filter((p) => p.verdict.word === word);
    const rewards = active.reduce((n, p) => n + p.learned.n, 0);
    const young = f.policies.filter((p) => p.age_s !== null && p.age_s < 60).length;
    const moving = f.window.old ? "No new decisions." : `${young} of ${f.policies.length} policies published within a minute, ${rewards.toLocaleString()} rewards shown.`;
    if (!active.length) tile("tile-learning", "No decisions yet", "dim", "It learns from decisions and their feedback.");
    else if (by("worse").length) tile("tile-learning", `${by("worse").length} of ${active.length} worse than the baseline`, "bad", moving);
    else if (by("better").length) tile("tile-learning", `${by("better").length} of ${active.length} policies beat the baseline`, "good", moving);
    else tile("tile-learning", young && !f.window.old ? "Learning, no lead yet" : "No lead over the baseline", "", moving);
    const p = current(f);
    if (p && p.learned.n) {
      const best = Object.entries(p.knobs).map(([knob, levels]) => {
        const [level, share] = Object.entries(levels).map(([l, line]) => [l, last(line)]).reduce((a, b) => (b[1] > a[1] ? b : a), ["–", -1]);
        return `${knob} ${level}${share > 0 ? " " + percent(share) : ""}`;
      });
      tile("tile-choice", best.join(", "), "", `Mostly, in ${p.name}; ${percent(p.learned.explored)} explored.`);
    } else tile("tile-choice", "Nothing yet", "dim", "Shares appear with the first rewards.");
    const warnings = f.alerts.filter((a) => a.severity !== "INFO").length;
    const urgent = f.alerts.filter((a) => a.severity === "CRITICAL" || a.severity === "ERROR").length;
    const silent = f.lag.filter((l) => l.records === null).map((l) => l.service);
    const behind = f.lag.reduce((n, l) => n + (l.records || 0), 0);
    const wrong = [];
    if (f.trouble) wrong.push(f.trouble);
    if (silent.length) wrong.push(`${silent.join(", ")} does not answer`);
    if (warnings) wrong.push(`${warnings} ${warnings === 1 ? "alert" : "alerts"}${f.alerts.length >= 30 ? " or more" : ""}${urgent ? `, ${urgent} critical` : ""}`);
    if (f.dead_letters) wrong.push(`${f.dead_letters} dead letters`);
    if (behind > 20000) wrong.push(`${behind.toLocaleString()} records behind`);
    tile("tile-wrong", wrong.length ? wrong[0] : "Nothing known", wrong.length ? (f.trouble || silent.length || urgent ? "bad" : "warn") : "good",
      wrong.slice(1).join("; ") || (wrong.length ? "See the lists below." : "No warnings, no dead letters, every service answers."));
  }
  const last = (line) => { const tail = line.slice(-8).filter((v) => v !== null); return tail.length ? tail.reduce((a, b) => a + b, 0) / tail.length : 0; };
  const current = (f) => f.policies.find((p) => p.name === chosen) || f.policies.find((p) => p.verdict.gain !== null) || f.policies.find((p) => p.learned.n) || f.policies[0];

  function fill(body, rows) {
    // Where the keyboard is, it stays: a table is made anew only when its words have changed.
    const key = JSON.stringify(rows.map((r) => r.key));
    if (body.dataset.key === key) return;
    body.dataset.key = key;
    const focused = body.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    body.replaceChildren(...rows.map((r) => r.make()));
    if (focused) for (const one of body.querySelectorAll("[data-focus]")) if (one.dataset.focus === focused) one.focus();
  }

  function cell(text, kind, name) { const td = el("td", { className: kind || "" }, text); if (name) td.dataset.name = name; return td; }

  function policies(f) {
    const now = current(f);
    $("empty").hidden = f.policies.length > 0;
    $("policies").hidden = !f.policies.length;
    fill($("policies").tBodies[0], f.policies.map((p) => {
      const [word, kind] = WORDS[p.verdict.word];
      const gain = p.verdict.gain === null ? "" : ` ${signed(p.verdict.gain)} utility (± ${number(2 * p.verdict.se, 2)})`;
      const parts = [number(p.learned.quality) + (p.baseline.quality === null ? "" : ` / ${number(p.baseline.quality)}`),
        usd(p.learned.cost) + changeText(change(p.learned.cost, p.baseline.cost)),
        ms(p.learned.latency) + changeText(change(p.learned.latency, p.baseline.latency)),
        percent(p.learned.explored), p.stage.toLowerCase(), p.version === null ? "–" : `${p.epoch}.${p.version}`, age(p.age_s)];
      return { key: [p.name, word, gain, parts, p === now], make: () => {
        const pick = el("button", { type: "button", className: "pick", ariaPressed: String(p === now) }, p.name);
        pick.dataset.focus = p.name;
        pick.addEventListener("click", () => { chosen = p.name; history.replaceState(null, "", "#" + encodeURIComponent(p.name)); draw(); });
        const verdict = el("td", {}, el("b", { className: kind }, word), gain);
        return el("tr", {}, el("td", {}, pick), verdict, cell(parts[0], "n", "quality"), cell(parts[1], "n", "cost"), cell(parts[2], "n", "latency"),
          cell(parts[3], "n wide"), cell(parts[4], "wide"), cell(parts[5], "n", "version"), cell(parts[6], "n", "age"));
      } };
    }));
    const w = f.window;
    $("window").textContent = f.policies.length ? `${clock(w.since)} to ${clock(w.until)}${w.old ? ", the last in which anything was decided" : ""}` : "";
  }

  function lists(f) {
    fill($("alerts"), f.alerts.length ? f.alerts.map((a) => ({ key: a.alert_id, make: () => {
      const urgent = a.severity === "CRITICAL" || a.severity === "ERROR";
      const at = new Date(a.ts * 1000).toLocaleTimeString();
      const li = el("li", {}, el("span", { className: "badge " + (urgent ? "bad" : "warn") }, a.severity.toLowerCase()), " ", el("b", {}, a.detector), " ", a.message, " ",
        el("span", { className: "dim" }, [at, a.policy, a.agent].filter(Boolean).join(", ")), " ");
      if (/^[0-9a-f]{32}$/.test(a.trace_id)) { const to = el("a", { href: "/trace/" + a.trace_id }, "trace"); to.dataset.focus = a.alert_id; li.append(to); }
      return li;
    } })) : [{ key: "none", make: () => el("li", { className: "dim" }, "No alerts in this time.") }]);
    fill($("lag").tBodies[0], f.lag.length ? f.lag.map((l) => ({ key: [l.service, l.topic, l.records], make: () =>
      el("tr", {}, cell(l.service), cell(l.topic), l.records === null ? cell("no answer", "n bad") : cell(l.records.toLocaleString(), "n" + (l.records > 20000 ? " bad" : ""))) }))
      : [{ key: "none", make: () => el("tr", {}, cell("No service is named in STEERSMAN_PAGE_METRICS.", "dim")) }]);
    fill($("traces").tBodies[0], f.traces.length ? f.traces.map((t) => ({ key: [t.trace_id, t.at, t.decisions, t.quality], make: () => {
      const to = el("a", { href: "/trace/" + encodeURIComponent(t.trace_id) }, el("code", {}, t.trace_id.slice(0, 12)));
      to.dataset.focus = t.trace_id;
      return el("tr", {}, el("td", {}, to, t.failures ? el("span", { className: "bad" }, ` ${t.failures} failed`) : ""), cell(clock(t.at), "wide"), cell(String(t.decisions), "n wide"), cell(number(t.quality), "n"), cell(usd(t.cost), "n"), cell(ms(t.latency), "n"));
    } })) : [{ key: "none", make: () => { const td = cell("No rewards in this time.", "dim"); td.colSpan = 6; return el("tr", {}, td); } }]);
  }

  // ---- plots ----
  const PLOTS = [["utility", "Utility (reward)", (v) => number(v)], ["cost", "Cost of a decision, USD", usd], ["latency", "Latency of a decision", ms], ["quality", "Quality", (v) => number(v)]];

  function spec(p) {
    const made = PLOTS.map(([key, title, show]) => ({ into: "plots", title, show, lines: [["learned", p.series.learned[key]], ["baseline (control group)", p.series.baseline[key]]], colors: ["--blue", "--grey"], dash: [null, [5, 4]] }));
    made.push({ into: "plots", title: "Explored share", show: percent, lines: [["explored", p.explored]], colors: ["--blue"], dash: [null], zero: true });
    for (const [knob, levels] of Object.entries(p.knobs)) {
      let lines = Object.entries(levels);
      if (lines.length > 8) lines = lines.map((l) => [l, last(l[1])]).sort((a, b) => b[1] - a[1]).slice(0, 8).map((l) => l[0]);
      made.push({ into: "knobs", title: knob, show: percent, lines, colors: lines.map((_, i) => "--s" + i), dash: lines.map(() => null), zero: true });
    }
    return made;
  }

  const times = (_, v, __, ___, step) => v.map((s) => new Date(s * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...(step < 60 ? { second: "2-digit" } : {}) }));
  function axis(show) { return { stroke: css("--dim"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") }, ...(show ? { size: 66, values: (_, v) => v.map(show) } : { space: 70, size: 30, values: times }) }; }

  function plots(f) {
    const p = current(f);
    $("detail").hidden = !p;
    if (!p) return;
    if ($("chosen").textContent !== p.name) $("chosen").textContent = p.name;
    $("history").href = "/policy/" + p.name.split("/").map(encodeURIComponent).join("/");
    const wanted = spec(p), t = [];
    for (let i = f.window.since; i < f.window.until; i += f.window.step) t.push(i);
    // A young loop fills the plot as well: the empty time before its first decision is left out.
    const first = Math.max(0, Math.min(p.explored.findIndex((v) => v !== null), t.length - 8));
    t.splice(0, first);
    for (const w of wanted) w.lines = w.lines.map(([label, line]) => [label, line.slice(first)]);
    const key = JSON.stringify([p.name, wanted.map((w) => [w.title, w.lines.map((l) => l[0])])]);
    if (key !== drawn) {
      for (const c of charts) c.plot.destroy();
      for (const id of ["plots", "knobs"]) $(id).replaceChildren();
      charts = wanted.map((w) => {
        const box = el("figure", { className: "plot" }, el("figcaption", {}, w.title));
        $(w.into).append(box);
        const options = {
          width: box.clientWidth - 16, height: 170, cursor: { y: false }, legend: { live: false }, scales: { y: w.zero ? { range: [0, 1] } : {} },
          axes: [axis(), axis(w.show)],
          series: [{}, ...w.lines.map(([label], i) => ({ label: "", stroke: css(w.colors[i]), width: 2, dash: w.dash[i] || undefined, spanGaps: true, points: { show: false } }))],
        };
        const plot = new uPlot(options, [t, ...w.lines.map((l) => l[1])], box);
        plot.root.querySelector("canvas").setAttribute("role", "img");
        return { plot, box };
      });
      drawn = key;
    }
    wanted.forEach((w, i) => {
      charts[i].plot.setData([t, ...w.lines.map((l) => l[1])]);
      const now = w.lines.map(([label, line]) => `${label} ${w.show(line.filter((v) => v !== null).at(-1))}`);
      // uPlot would put labels in as markup; ours are what agents call their knobs and levels.
      const labels = [...charts[i].plot.root.querySelectorAll(".u-legend .u-label")].slice(-now.length);
      labels.forEach((label, j) => { if (label.textContent !== now[j]) label.textContent = now[j]; });
      charts[i].plot.root.querySelector("canvas").setAttribute("aria-label", `${w.title}: newest ${now.join(", ")}`);
    });
  }

  function draw() {
    if (!frame || !frame.policies) return;
    tiles(frame); policies(frame); lists(frame); plots(frame);
  }
  function redraw() { drawn = ""; draw(); }

  const source = new EventSource("/events");
  source.addEventListener("message", (event) => {
    frame = JSON.parse(event.data);
    seenAt = Date.now();
    if (frame.trouble) { state("trouble", "store does not answer"); notice(`${frame.trouble}. ${frame.at ? `What you see is of ${clock(frame.at)}.` : ""}`); if (!frame.policies) tile("tile-wrong", frame.trouble, "bad", "Nothing could be read yet."); }
    else { state("live", "live"); notice(""); }
    if (!document.hidden) draw();
  });
  setInterval(() => {
    if (seenAt && Date.now() - seenAt > LOST_MS) { state("lost", "disconnected"); notice(`No connection to the page's server. What you see is of ${clock(seenAt / 1000)}; it goes on by itself.`); }
  }, 500);
  source.addEventListener("error", () => {
    state("lost", "disconnected");
    notice(seenAt ? `No connection to the page's server. What you see is of ${clock(seenAt / 1000)}; it goes on by itself.` : "No connection to the page's server, or too many follow it already.");
    // A refusal ends an EventSource for good: after a restart with a token, the way is to sign in again.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) draw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let timer = 0;
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(() => charts.forEach((c) => c.plot.setSize({ width: c.box.clientWidth - 16, height: 170 })), 100); });
  $("find").addEventListener("submit", (event) => { event.preventDefault(); location.assign("/trace/" + encodeURIComponent($("find-id").value.trim().toLowerCase())); });
})();
