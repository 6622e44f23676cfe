// Elements. Text from outside only ever comes in as text.

const SVG = "http://www.w3.org/2000/svg";

// Return an element. `on` has listeners by event, `text` its text; null and false leave an attribute out.
export function make(tag, { text, on = {}, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  if (text !== undefined) element.textContent = text;
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export function button(text, press, attributes = {}) {
  return make("button", { type: "button", text, on: { click: press }, ...attributes });
}

export function byId(id) {
  return document.getElementById(id);
}

// Return a line drawing for one kind of device.
export function icon(kind) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", LINES[kind] ?? LINES.device);
  svg.append(path);
  return svg;
}

const LINES = {
  device: "M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4",
  light: "M9 18h6M10 21h4M12 3a6 6 0 0 0-3.6 10.8c.4.3.6.8.6 1.3v.9h6v-.9c0-.5.2-1 .6-1.3A6 6 0 0 0 12 3z",
  switch: "M9 3v5M15 3v5M6 8h12v3a6 6 0 0 1-12 0zM12 17v4",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3M12 14.5v2",
  cover: "M4 4h16M6 4v15h12V4M6 8h12M6 12h12M6 16h12",
  climate: "M10 13.5V5a2 2 0 0 1 4 0v8.5a4 4 0 1 1-4 0zM12 9v8",
  water_heater: "M10 13.5V5a2 2 0 0 1 4 0v8.5a4 4 0 1 1-4 0zM12 9v8",
  fan: "M12 12m-1.5 0a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0-3 0M12 10.5c-3-4-1-7 1-7s3 3 .2 7M13.3 12.8c5-.6 6.6 2.500 5.600 4.200s-4 1.200-5.800-3M10.700 12.800c-2 4.600-5.600 4.600-6.600 2.900s1.100-4.200 5.700-4",
  valve: "M12 3.500c3.500 4.200 6 7 6 10.500a6 6 0 0 1-12 0c0-3.500 2.500-6.300 6-10.500zM9.500 14.500a2.500 2.500 0 0 0 2.500 2.500",
  sensor: "M4 18a9 9 0 1 1 16 0M12 16l4-5M12 16m-1.200 0a1.200 1.200 0 1 0 2.400 0a1.200 1.200 0 1 0-2.400 0",
  binary_sensor: "M12 12m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0M7.500 16.500a6.400 6.400 0 0 1 0-9M16.500 7.500a6.400 6.400 0 0 1 0 9M4.700 19.300a10.300 10.300 0 0 1 0-14.600M19.300 4.700a10.300 10.300 0 0 1 0 14.600",
  media_player: "M4 10v4h3.500L12 18V6L7.500 10zM15.500 9a4.200 4.200 0 0 1 0 6M18 6.500a7.800 7.800 0 0 1 0 11",
  siren: "M4 10v4h3.500L12 18V6L7.500 10zM15.500 9a4.200 4.200 0 0 1 0 6M18 6.500a7.800 7.800 0 0 1 0 11",
  vacuum: "M12 12m-8.500 0a8.500 8.500 0 1 0 17 0a8.500 8.500 0 1 0-17 0M12 12m-2.500 0a2.500 2.500 0 1 0 5 0a2.500 2.500 0 1 0-5 0M6 6l2.500 2.500",
  alarm_control_panel: "M12 3l7 3v5.500c0 4.500-3 7.500-7 9.500-4-2-7-5-7-9.500V6zM9 12l2 2 4-4",
  humidifier: "M12 3.500c3.500 4.200 6 7 6 10.500a6 6 0 0 1-12 0c0-3.500 2.500-6.300 6-10.500zM9.500 14.500a2.500 2.500 0 0 0 2.500 2.500",
  arm: "M5 20h8M7 20l2-8M9 12l7-5M9 12m-1.800 0a1.800 1.800 0 1 0 3.600 0a1.800 1.800 0 1 0-3.600 0M16 7l3-2M16 7l2.500 2.500",
};
