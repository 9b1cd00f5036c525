const MOST_OPEN = 50;
const collator = new Intl.Collator("en", { numeric: true });
const byId = (id) => document.getElementById(id);

/** Returns an element with attributes and children; strings are never parsed as HTML. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function compare(left, right) {
  return typeof left === "number" && typeof right === "number" ? left - right : collator.compare(left, right);
}

/* Columns of devices. The keys of a device are those of DEVICE_COLUMNS in _report_columns.py. */

const isSame = (left, right) => left.driver === right.driver && left.driver_override === right.driver_override;
const bindingTexts = (binding) => (binding ? [binding.driver, binding.driver_override] : []);
const bindingKey = (binding) =>
  binding
    ? bindingTexts(binding)
        .map((text) => text || "")
        .join(" ")
    : "";
const MOST_USES = 3;
const absent = (text) => make("span", { class: "absent" }, text);
const emptyCell = () => make("td", { class: "empty" }, absent("–"));

function bindingCell(binding, reference, ...notes) {
  if (!binding) return emptyCell();
  const cell = make("td", reference && !isSame(binding, reference) ? { class: "differs" } : {});
  const { driver, driver_override: override } = binding;
  cell.append(driver ? make("code", {}, driver) : absent("no driver"));
  if (override && override !== driver) cell.append(make("small", {}, "override ", make("code", {}, override)));
  cell.append(...notes.map((note) => make("small", {}, note)));
  return cell;
}

/** Returns the messages as paragraphs, the first with a label; those after `most` are below a summary. */
function paragraphs(label, messages, most = messages.length) {
  const all = messages.map((message, index) =>
    index ? make("p", {}, message) : make("p", {}, make("b", {}, `${label}: `), message),
  );
  const more = all.splice(most);
  return more.length ? [...all, make("details", {}, make("summary", {}, `${more.length} more`), ...more)] : all;
}

const isListed = (device) => device.desired !== null;
const isNewCandidate = (device) => device.candidate && !isListed(device);
const modelOf = (device) => device.compatible[0] || device.acpi_hid || device.pci_id || "";
const messagesOf = (items) => items.map((item) => item.message);
const usesOf = (device) =>
  device.in_use_by ? messagesOf(device.in_use_by) : ["unknown, because it was read without root"];
const isUsed = (device) => device.in_use_by !== null && device.in_use_by.length > 0;

/** Returns whether a device that is not in the list could be bound to VFIO, if that is known. */
function verdictsOn(device) {
  if (isListed(device) || device.candidate === null) return [];
  return [device.candidate ? "yes" : `no (${messagesOf(device.why_not).join("; ")})`];
}

/** Returns a column of short texts; `textOf` returns an empty one if there is nothing to show. */
function textColumn(title, className, textOf, tag = "span") {
  return {
    title,
    className,
    sortKey: textOf,
    texts: (device) => [textOf(device)],
    render: (device) => (textOf(device) ? make("td", {}, make(tag, {}, textOf(device))) : emptyCell()),
  };
}

/**
 * Columns of a host's devices, with their head, cells, order and filter. `className` is the class of the head and sets
 * the width, `sortKey` returns a string or a number, `texts` the strings that the filter searches, `render` the cell.
 * `isFor` returns whether a host with these devices has the column.
 */
const COLUMNS = [
  {
    title: "Device",
    className: "device",
    sortKey: (device) => device.device,
    texts: (device) => [device.device, device.name, device.bus],
    render: ({ device, name, bus }) =>
      make(
        "th",
        { scope: "row" },
        make("code", {}, device),
        make("small", {}, name === device ? bus : `${bus} ${name}`),
      ),
  },
  {
    title: "Running now",
    className: "binding",
    sortKey: bindingKey,
    texts: bindingTexts,
    render: (device) => bindingCell(device, device.desired || device.next_boot),
  },
  {
    title: "Required",
    className: "binding",
    isFor: (hostDevices) => hostDevices.some(isListed),
    sortKey: (device) => bindingKey(device.desired),
    texts: (device) => bindingTexts(device.desired),
    render: (device) => bindingCell(device.desired),
  },
  {
    title: "After next boot",
    className: "next-boot",
    isFor: (hostDevices) => hostDevices.some((device) => isListed(device) || device.drift.length > 0),
    sortKey: (device) => bindingKey(device.next_boot),
    texts: (device) => bindingTexts(device.next_boot),
    render: (device) => {
      const { reason, in_drift: isInDrift } = device.next_boot;
      const isExplained = isInDrift || (isListed(device) && isSame(device.next_boot, device.desired));
      const reasons = device.drift.length && !isExplained ? [reason] : [];
      return bindingCell(device.next_boot, device.desired || device, ...reasons);
    },
  },
  textColumn("Compatible", "compatible", modelOf, "code"),
  {
    title: "IOMMU group",
    className: "group",
    sortKey: (device) => device.iommu_group || "",
    texts: () => [],
    render: ({ iommu_group: group, iommu_group_devices: others }) => {
      if (!group) return emptyCell();
      const cell = make("td", {}, make("span", {}, group));
      if (others) cell.append(make("small", {}, others === 1 ? "and 1 other" : `and ${others} others`));
      return cell;
    },
  },
  textColumn("Reset", "reset", ({ reset_function: has }) => (has === null ? "" : has ? "yes" : "no")),
  {
    title: "Details",
    className: "notes",
    sortKey: (device) => -2 * Math.min(device.drift.length, 1) - isUsed(device),
    texts: (device) => [
      ...device.drift,
      ...messagesOf(device.why_not),
      ...(device.in_use_by || []).flatMap((use) => [use.kind, use.message]),
    ],
    render: (device) => {
      const drift = make("div", { class: "drift-message" }, ...paragraphs("Drift", device.drift));
      return make(
        "td",
        {},
        ...(device.drift.length ? [drift] : []),
        ...paragraphs("VFIO", verdictsOn(device)),
        ...paragraphs("In use", usesOf(device), MOST_USES),
      );
    },
  },
];

const VIEWS = [
  { title: "All", includes: () => true },
  { title: "In the list", includes: isListed },
  { title: "Candidates", includes: isNewCandidate },
  { title: "Drift", includes: (device) => device.drift.length > 0 },
  { title: "In use", includes: isUsed },
];

/** Sorts devices with drift first, then those in the list, then those that could be. */
function compareUrgency(left, right) {
  const rank = (device) => (device.drift.length ? 0 : isListed(device) ? 1 : device.candidate ? 2 : 3);
  return rank(left) - rank(right) || collator.compare(left.device, right.device);
}

/* Devices, each decoded when it is first needed. */

const data = JSON.parse(byId("ui-data").textContent);
const encodedColumns = Object.entries(data.devices);
const devices = [];

function deviceOf(number) {
  if (!devices[number]) {
    const entries = encodedColumns.map(([key, { values, index }]) => [key, values[index[number] ?? 0]]);
    const device = Object.fromEntries(entries);
    device.searchText = COLUMNS.flatMap((column) => column.texts(device))
      .join("\n")
      .toLowerCase();
    devices[number] = device;
  }
  return devices[number];
}

/* Hosts, from the rows of the page. */

const table = byId("ui-table");
const body = table.tBodies[0];
const stateButtons = [...document.querySelectorAll(".states button")];
const severity = Object.fromEntries(stateButtons.map((button, index) => [button.dataset.state, index]));
const textOf = (cell) => cell.textContent;
/* Sort keys of the cells of a column of hosts, by the class of its head. */
const SORT_KEYS = {
  name: textOf,
  state: (cell) => severity[cell.parentElement.dataset.state],
  message: textOf,
  number: (cell) => (Number.isNaN(Number(textOf(cell))) ? -1 : Number(textOf(cell))),
};
const hostColumns = [...table.tHead.rows[0].cells].map((head) => ({
  head,
  title: head.textContent,
  isNumber: head.className === "number",
  cellOf: (host) => host.row.cells[head.cellIndex],
  sortKey: (host) => SORT_KEYS[head.className](host.row.cells[head.cellIndex]),
}));
const hosts = data.hosts.map((encoded, index) => {
  const host = {
    row: body.rows[index],
    name: encoded.host,
    state: body.rows[index].dataset.state,
    devices: encoded.devices,
    policyList: encoded.list === undefined ? null : data.lists[encoded.list],
    opener: null,
    details: null,
    view: VIEWS[0],
    isShown: true,
  };
  const texts = hostColumns.filter((column) => !column.isNumber).map((column) => textOf(column.cellOf(host)));
  host.searchText = texts.join("\n").toLowerCase();
  return host;
});
const hostsByName = new Map(hosts.map((host) => [host.name, host]));

/* Filters */

const input = byId("ui-filter");
const matches = byId("ui-matches");
let terms = [];

/** The terms that a device has to match, after those that its host does. */
const deviceTerms = (host) => terms.filter((term) => !host.searchText.includes(term));
const isMatch = (device, wanted) => wanted.every((term) => device.searchText.includes(term));

function filter() {
  terms = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const pressed = new Set(stateButtons.filter(isPressed).map((button) => button.dataset.state));
  let shown = 0;
  for (const host of hosts) {
    const wanted = deviceTerms(host);
    host.isShown =
      (!pressed.size || pressed.has(host.state)) &&
      (!wanted.length || host.devices.some((number) => isMatch(deviceOf(number), wanted)));
    host.row.hidden = !host.isShown;
    if (host.details) {
      host.details.row.hidden = !host.isShown;
      if (host.isShown) renderDevices(host);
    }
    shown += host.isShown;
  }
  matches.textContent = `${shown} of ${hosts.length} ${hosts.length === 1 ? "host" : "hosts"} shown`;
  byId("ui-open").disabled = shown > MOST_OPEN;
  byId("ui-open").textContent = shown > MOST_OPEN ? `Open all shown (up to ${MOST_OPEN})` : "Open all shown";
  updateCloseButton();
}

function isPressed(button) {
  return button.getAttribute("aria-pressed") === "true";
}

function updateCloseButton() {
  byId("ui-close").disabled = !hosts.some((host) => host.details);
}

/* Sorting */

/** Makes the head of each column a button; `sort` is called with a function that compares two items. */
function makeSortable(columns, sort) {
  for (const { head, sortKey } of columns) {
    const button = make("button", { type: "button", class: "sort" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const isUp = head.getAttribute("aria-sort") !== "ascending";
      for (const column of columns) column.head.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      const direction = isUp ? 1 : -1;
      sort((left, right) => direction * compare(sortKey(left), sortKey(right)));
    });
  }
}

function sortHosts(compareHosts) {
  hosts.sort((left, right) => compareHosts(left, right) || collator.compare(left.name, right.name));
  body.append(...hosts.flatMap((host) => (host.details ? [host.row, host.details.row] : [host.row])));
}

/* The devices of a host */

function deviceRow(device, columns) {
  const row = make("tr", device.drift.length ? { class: "drifts" } : {});
  for (const column of columns) {
    const cell = column.render(device);
    // A narrow screen shows it in front of the cell.
    cell.dataset.label = column.title;
    row.append(cell);
  }
  return row;
}

/** Returns the reason for which devices are shown as one line, or an empty text. */
function groupOf(device) {
  if (isListed(device) || device.candidate || device.drift.length || !device.why_not.length) return "";
  return device.why_not[0].message;
}

/** Returns lines of devices with the same reason, each with a button that shows them, by their reason. */
function groupLines(host, hostDevices, width) {
  const members = Map.groupBy(hostDevices.filter(groupOf), groupOf);
  const lines = new Map();
  for (const [reason, { length }] of members) {
    if (length < 2) continue;
    const number = make("span", {}, `${length} devices`);
    const button = make("button", { type: "button", class: "opener", "aria-expanded": "false" }, reason, number);
    const row = make("tr", { class: "reason" }, make("th", { scope: "row", colspan: width }, button));
    button.addEventListener("click", () => {
      button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") !== "true"));
      renderDevices(host);
    });
    lines.set(reason, { row, button, length });
  }
  return lines;
}

/** Returns a list for the inventory, folded. */
function policyListDetails(text) {
  const summary = make("summary", {}, "Policy list with the candidates, to paste into the inventory");
  return make("details", { class: "policy-list" }, summary, make("pre", { tabindex: "0" }, text));
}

function open(host) {
  if (host.details || !host.opener) return;
  const hostDevices = host.devices.map(deviceOf).sort(compareUrgency);
  const columns = COLUMNS.filter(({ isFor }) => !isFor || isFor(hostDevices)).map((column) => ({
    ...column,
    head: make("th", { scope: "col", class: column.className }, column.title),
  }));
  const rows = new Map(hostDevices.map((device) => [device, deviceRow(device, columns)]));
  const list = make("tbody");
  const devicesTable = make(
    "table",
    { class: "devices" },
    make("caption", { class: "visually-hidden" }, `Devices of ${host.name}`),
    make("thead", {}, make("tr", {}, ...columns.map((column) => column.head))),
    list,
  );
  const status = make("span", { role: "status" });
  const views = VIEWS.map((view) => {
    const button = make("button", { type: "button" }, `${view.title} ${hostDevices.filter(view.includes).length}`);
    button.addEventListener("click", () => {
      host.view = view;
      renderDevices(host);
    });
    return { view, button };
  });
  const group = make("div", { class: "views", role: "group", "aria-label": `Devices of ${host.name} to show` });
  group.append(...views.map((entry) => entry.button), status);
  const content = make("td", { colspan: hostColumns.length }, group, devicesTable);
  if (host.policyList) group.after(policyListDetails(host.policyList));
  const row = make("tr", { class: "details" }, content);
  const groups = groupLines(host, hostDevices, columns.length);
  host.details = { row, devices: hostDevices, rows, list, views, status, groups };
  makeSortable(columns, (compareDevices) => {
    hostDevices.sort(compareDevices);
    host.details.groups = new Map();
    renderDevices(host);
  });
  renderDevices(host);
  host.row.after(row);
  host.row.classList.add("is-open");
  host.opener.setAttribute("aria-expanded", "true");
  updateCloseButton();
}

/**
 * Shows the devices of an open host that match its view and the filter. If those are all, in the order of urgency,
 * devices with the same reason follow the line of their group.
 */
function renderDevices(host) {
  const { devices: hostDevices, rows, list, views, status, groups } = host.details;
  const wanted = deviceTerms(host);
  const shown = hostDevices.filter((device) => host.view.includes(device) && isMatch(device, wanted));
  const isGrouped = host.view === VIEWS[0] && !wanted.length;
  const groupFor = (device) => (isGrouped ? groups.get(groupOf(device)) : undefined);
  const lines = shown.filter((device) => !groupFor(device)).map((device) => rows.get(device));
  for (const [reason, { row, button }] of isGrouped ? groups : []) {
    lines.push(row);
    if (button.getAttribute("aria-expanded") !== "true") continue;
    for (const device of shown) if (groupOf(device) === reason) lines.push(rows.get(device));
  }
  list.replaceChildren(...lines);
  for (const { view, button } of views) button.setAttribute("aria-pressed", String(view === host.view));
  const isComplete = shown.length === hostDevices.length;
  status.textContent = isComplete ? "" : `${shown.length} of ${hostDevices.length} devices shown`;
}

function close(host) {
  if (!host.details) return;
  host.details.row.remove();
  host.details = null;
  host.row.classList.remove("is-open");
  host.opener.setAttribute("aria-expanded", "false");
  updateCloseButton();
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

const nameColumn = hostColumns.find((column) => column.head.className === "name");
for (const host of hosts) {
  for (const column of hostColumns.filter(({ isNumber }) => isNumber)) {
    const cell = column.cellOf(host);
    cell.classList.toggle("nonzero", column.sortKey(host) > 0);
    // A narrow screen shows it in front of the number.
    if (host.devices.length) cell.dataset.label = column.title;
  }
  const nameCell = nameColumn.cellOf(host);
  if (!host.devices.length) {
    nameCell.replaceChildren(make("span", { class: "without-devices" }, host.name));
    continue;
  }
  host.opener = make("button", { type: "button", class: "opener", "aria-expanded": "false" }, host.name);
  host.opener.addEventListener("click", () => toggle(host));
  nameCell.replaceChildren(host.opener);
}

/** Shows the host that the address names, whatever is filtered. */
function followAddress() {
  let name = location.hash.slice(1);
  try {
    name = decodeURIComponent(name);
  } catch {
    // Not what this page writes; taken as it is.
  }
  const host = hostsByName.get(name);
  if (!host) return;
  if (!host.isShown) {
    input.value = "";
    for (const button of stateButtons) button.setAttribute("aria-pressed", "false");
    filter();
  }
  open(host);
  host.row.scrollIntoView();
  if (host.opener) host.opener.focus({ preventScroll: true });
}

/* Light and dark */

const themeButton = byId("ui-theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";

/** Stores a theme, if one is given, and returns the stored one. */
function storedTheme(theme) {
  try {
    if (theme) localStorage.setItem("armfleet-vfio-theme", theme);
    return localStorage.getItem("armfleet-vfio-theme");
  } catch {
    // A browser may store nothing for a file; the switch works without it.
    return theme || null;
  }
}

function updateThemeButton() {
  themeButton.textContent = isDark() ? "Light theme" : "Dark theme";
}

const initialTheme = storedTheme();
if (initialTheme === "light" || initialTheme === "dark") document.documentElement.dataset.theme = initialTheme;
themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = storedTheme(isDark() ? "light" : "dark");
  updateThemeButton();
});
systemDark.addEventListener("change", updateThemeButton);

/* Start */

let timer = 0;
input.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(filter, 100);
});
for (const button of stateButtons) {
  button.disabled = false;
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(!isPressed(button)));
    filter();
  });
}
byId("ui-open").addEventListener("click", () => hosts.filter((host) => host.isShown).forEach(open));
byId("ui-close").addEventListener("click", () => hosts.forEach(close));
makeSortable(hostColumns, sortHosts);
updateThemeButton();
themeButton.hidden = false;
byId("ui-tools").hidden = false;
filter();
addEventListener("hashchange", followAddress);
// Once loaded the browser itself goes to the row that the address names, and takes the focus along.
addEventListener("load", () => setTimeout(followAddress));
