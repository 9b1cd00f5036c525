"use strict";
(() => {
  const MOST_OPEN = 50;
  const COLUMNS = ["Device", "Running now", "Its list wants", "After next boot", "Drift and hazards"];
  const PARTS = [
    ["All", () => true],
    ["In its list", (device) => device.desired !== null],
    ["Drift", (device) => device.drift.length > 0],
    ["Hazards", (device) => device.hazards.length > 0],
  ];
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("ui-data").textContent);
  const collator = new Intl.Collator("en", { numeric: true });

  /** An element with attributes and children; a text is always text. */
  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /* The devices, each made of its numbers when it is first asked for. */

  const text = (number) => (number < 0 ? null : data.texts[number]);
  const binding = (driver, override) => ({ driver: text(driver), override: text(override) });
  const devices = new Array(data.devices.length);

  function deviceOf(number) {
    if (devices[number]) return devices[number];
    const [device, name, bus, driver, override, desired, after, afterOverride, reason, drift, hazards] =
      data.devices[number];
    const made = {
      device: text(device),
      name: text(name),
      bus: text(bus),
      running: binding(driver, override),
      desired: desired.length ? binding(...desired) : null,
      after: binding(after, afterOverride),
      reason: text(reason),
      drift: drift.map(text),
      hazards: hazards.map(([kind, sentence]) => ({ kind: text(kind), sentence: text(sentence) })),
    };
    const words = [made.device, made.name, made.bus, ...made.drift];
    for (const one of [made.running, made.desired, made.after]) if (one) words.push(one.driver, one.override);
    for (const hazard of made.hazards) words.push(hazard.kind, hazard.sentence);
    made.words = words.join("\n").toLowerCase();
    devices[number] = made;
    return made;
  }

  /* The hosts are the rows that are there already. */

  const table = byId("ui-table");
  const body = table.tBodies[0];
  const states = [...document.querySelectorAll(".states button")];
  const severity = Object.fromEntries(states.map((button, place) => [button.dataset.state, place]));
  const hosts = [...body.rows].map((row, number) => ({
    row,
    name: row.cells[0].textContent,
    state: row.dataset.state,
    keys: [
      row.cells[0].textContent,
      severity[row.dataset.state],
      row.cells[2].textContent,
      ...[3, 4, 5, 6].map((cell) => (data.hosts[number].length ? Number(row.cells[cell].textContent) : -1)),
    ],
    words: `${row.cells[0].textContent}\n${row.cells[1].textContent}\n${row.cells[2].textContent}`.toLowerCase(),
    devices: data.hosts[number],
    opener: null,
    details: null,
    part: 0,
    shown: true,
  }));
  const byName = new Map(hosts.map((host) => [host.name, host]));

  /* Filters */

  const input = byId("ui-filter");
  const matches = byId("ui-matches");
  let asked = [];

  /** The words that a device has to have, after those that its host has. */
  const wordsLeft = (host) => asked.filter((word) => !host.words.includes(word));
  const has = (device, words) => words.every((word) => device.words.includes(word));

  function filter() {
    asked = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const pressed = new Set(states.filter(isPressed).map((button) => button.dataset.state));
    let shown = 0;
    for (const host of hosts) {
      const left = wordsLeft(host);
      host.shown =
        (!pressed.size || pressed.has(host.state)) &&
        (!left.length || host.devices.some((number) => has(deviceOf(number), left)));
      host.row.hidden = !host.shown;
      if (host.details) {
        host.details.hidden = !host.shown;
        if (host.shown) fill(host);
      }
      shown += host.shown;
    }
    matches.textContent = `${shown} of ${hosts.length} ${hosts.length === 1 ? "host" : "hosts"} shown`;
    byId("ui-open").disabled = shown > MOST_OPEN;
    byId("ui-open").textContent = shown > MOST_OPEN ? `Open all shown (up to ${MOST_OPEN})` : "Open all shown";
    tellClosable();
  }

  function isPressed(button) {
    return button.getAttribute("aria-pressed") === "true";
  }

  function tellClosable() {
    byId("ui-close").disabled = !hosts.some((host) => host.details);
  }

  /* Sorting */

  /** Makes the heads of a table buttons; `order` is called with a column and 1 or -1. */
  function makeSortable(heads, order) {
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", class: "sort" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const isUp = head.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
        order(column, isUp ? 1 : -1);
      });
    });
  }

  function compare(one, other) {
    return typeof one === "number" && typeof other === "number" ? one - other : collator.compare(one, other);
  }

  function sortHosts(column, direction) {
    hosts.sort(
      (one, other) =>
        direction * compare(one.keys[column], other.keys[column]) || collator.compare(one.name, other.name),
    );
    body.append(...hosts.flatMap((host) => (host.details ? [host.row, host.details] : [host.row])));
  }

  /* The devices of a host */

  function shownBinding(found, absent) {
    if (!found) return [make("span", { class: "absent" }, absent)];
    const driver = found.driver ? make("code", {}, found.driver) : make("span", { class: "absent" }, "no driver");
    if (!found.override || found.override === found.driver) return [driver];
    return [driver, make("small", {}, "override ", make("code", {}, found.override))];
  }

  const isSame = (one, other) => one.driver === other.driver && one.override === other.override;

  const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

  function deviceRow(device) {
    const { running, desired, after, drift } = device;
    const row = make("tr", drift.length ? { class: "drifts" } : {});
    const differs = (is) => (is ? { class: "differs" } : {});
    const title = make("th", { scope: "row" }, make("code", {}, device.device));
    const place = device.name === device.device ? device.bus : `${device.bus} ${device.name}`;
    title.append(make("small", {}, place));
    const later = make("td", differs(!isSame(after, desired || running)), ...shownBinding(after));
    if (drift.length) later.append(make("small", {}, device.reason));
    const notes = [
      ...drift.map((sentence) => make("p", { class: "drift-words" }, make("b", {}, "Drift: "), sentence)),
      ...device.hazards.map((one) => make("p", {}, make("b", {}, `${capital(one.kind)}: `), one.sentence)),
    ];
    row.append(
      title,
      make("td", differs(!isSame(running, desired || after)), ...shownBinding(running)),
      make("td", {}, ...shownBinding(desired, "not in it")),
      later,
      make("td", {}, ...notes),
    );
    return row;
  }

  const label = (found) => (found ? `${found.driver || ""} ${found.override || ""}` : "");
  const DEVICE_KEYS = [
    (device) => device.device,
    (device) => label(device.running),
    (device) => label(device.desired),
    (device) => label(device.after),
    (device) => -2 * Math.min(device.drift.length, 1) - Math.min(device.hazards.length, 1),
  ];

  /** What needs somebody comes first, then what is in the list. */
  function byNeed(one, other) {
    const need = (device) => (device.drift.length ? 0 : device.desired ? 1 : 2);
    return need(one) - need(other) || collator.compare(one.device, other.device);
  }

  function open(host) {
    if (host.details || !host.opener) return;
    const own = host.devices.map(deviceOf).sort(byNeed);
    const rows = new Map(own.map((device) => [device, deviceRow(device)]));
    const heads = COLUMNS.map((title) => make("th", { scope: "col" }, title));
    const list = make("tbody");
    const columns = ["device", "binding", "binding", "after", ""].map((kind) => make("col", { class: kind }));
    const devicesTable = make(
      "table",
      { class: "devices" },
      make("caption", { class: "unseen" }, `Devices of ${host.name}`),
      make("colgroup", {}, ...columns),
      make("thead", {}, make("tr", {}, ...heads)),
      list,
    );
    const said = make("span", { role: "status" });
    const parts = PARTS.map(([title, belongs], number) => {
      const button = make("button", { type: "button" }, `${title} ${own.filter(belongs).length}`);
      button.addEventListener("click", () => {
        host.part = number;
        fill(host);
      });
      return button;
    });
    const group = make("div", { class: "part", role: "group", "aria-label": `Devices of ${host.name} to show` });
    group.append(...parts, said);
    host.details = make("tr", { class: "details" }, make("td", { colspan: "7" }, group, devicesTable));
    host.inside = { own, rows, list, parts, said };
    makeSortable(heads, (column, direction) => {
      own.sort((one, other) => direction * compare(DEVICE_KEYS[column](one), DEVICE_KEYS[column](other)));
      fill(host);
    });
    fill(host);
    host.row.after(host.details);
    host.row.classList.add("is-open");
    host.opener.setAttribute("aria-expanded", "true");
    tellClosable();
  }

  /** Shows of an open host the devices that are asked for. */
  function fill(host) {
    const { own, rows, list, parts, said } = host.inside;
    const left = wordsLeft(host);
    const shown = own.filter((device) => PARTS[host.part][1](device) && has(device, left));
    list.replaceChildren(...shown.map((device) => rows.get(device)));
    parts.forEach((button, number) => button.setAttribute("aria-pressed", String(number === host.part)));
    said.textContent = shown.length === own.length ? "" : `${shown.length} of ${own.length} devices shown`;
  }

  function close(host) {
    if (!host.details) return;
    host.details.remove();
    host.details = null;
    host.row.classList.remove("is-open");
    host.opener.setAttribute("aria-expanded", "false");
    tellClosable();
  }

  function toggle(host) {
    if (host.details) {
      close(host);
      return;
    }
    open(host);
    // Without an entry in the history: the way back leads out of the page.
    history.replaceState(null, "", `#${encodeURIComponent(host.name)}`);
  }

  for (const host of hosts) {
    const [head, , , ...numbers] = host.row.cells;
    for (const cell of numbers) cell.classList.toggle("some", Number(cell.textContent) > 0);
    if (!host.devices.length) {
      head.replaceChildren(make("span", { class: "closed-for-good" }, host.name));
      continue;
    }
    host.opener = make("button", { type: "button", class: "opener", "aria-expanded": "false" }, host.name);
    host.opener.addEventListener("click", () => toggle(host));
    head.replaceChildren(host.opener);
  }

  /** Shows the host that the address names, whatever is filtered. */
  function followAddress() {
    let name = location.hash.slice(1);
    try {
      name = decodeURIComponent(name);
    } catch {
      // Not what this page writes; taken as it is.
    }
    const host = byName.get(name);
    if (!host) return;
    if (!host.shown) {
      input.value = "";
      for (const button of states) button.setAttribute("aria-pressed", "false");
      filter();
    }
    open(host);
    host.row.scrollIntoView();
    if (host.opener) host.opener.focus({ preventScroll: true });
  }

  /* Light and dark */

  const theme = byId("ui-theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";

  function kept(value) {
    try {
      if (value) localStorage.setItem("armfleet-vfio-theme", value);
      return localStorage.getItem("armfleet-vfio-theme");
    } catch {
      // A browser may keep nothing for a file; the switch works all the same.
      return value || null;
    }
  }

  function nameTheme() {
    theme.textContent = isDark() ? "Light theme" : "Dark theme";
  }

  const chosen = kept();
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = kept(isDark() ? "light" : "dark");
    nameTheme();
  });
  system.addEventListener("change", nameTheme);

  /* Begin */

  let waiting = 0;
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 100);
  });
  for (const button of states) {
    button.disabled = false;
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(!isPressed(button)));
      filter();
    });
  }
  byId("ui-open").addEventListener("click", () => hosts.filter((host) => host.shown).forEach(open));
  byId("ui-close").addEventListener("click", () => hosts.forEach(close));
  makeSortable([...table.tHead.rows[0].cells], sortHosts);
  nameTheme();
  theme.hidden = false;
  byId("ui-tools").hidden = false;
  filter();
  addEventListener("hashchange", followAddress);
  // Once loaded the browser itself goes to the row that the address names, and takes the focus along.
  addEventListener("load", () => setTimeout(followAddress));
})();
