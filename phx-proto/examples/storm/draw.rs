//! Draws the storms: the number of clients of phx and of phoenix.js that dial in each 100 ms.

use std::fmt::Write as _;

use super::{Attempts, Storm};

/// The width of the picture in pixels; each storm has its own panel.
const WIDTH: usize = 720;
const PANEL: usize = 170;
/// The position and the size of the drawing in a panel.
const LEFT: usize = 48;
const TOP: usize = 34;
const HEIGHT: usize = 100;
const ACROSS: usize = WIDTH - LEFT - 12;

const OURS: &str = "#1f78d1";
const THEIRS: &str = "#e0872b";

/// Draws storms with this many clients in one picture. The picture has no blank lines, so that it can
/// be embedded in a page of Markdown. Its text has the colour of the page.
pub fn draw(clients: usize, storms: &[Storm]) -> String {
    let height = storms.len() * PANEL + 24;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" role=\"img\" font-family=\"sans-serif\" font-size=\"12\" \
         fill=\"currentColor\" style=\"max-width:100%\">\n\
         <title>Attempts to connect after a disaster, by {clients} clients of phx and of \
         phoenix.js</title>\n"
    );
    for (index, storm) in storms.iter().enumerate() {
        panel(&mut svg, index * PANEL, clients, storm);
    }
    // Writing to a string cannot fail.
    let y = height - 8;
    for (x, colour, name) in [(LEFT, OURS, "phx"), (LEFT + 60, THEIRS, "phoenix.js")] {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{y}\">{name}</text>",
            y - 9,
            x + 15,
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">attempts in each 100 ms, as a share of \
         the clients; seconds after the disaster</text>\n</svg>",
        WIDTH - 12
    );
    svg
}

fn panel(svg: &mut String, top: usize, clients: usize, storm: &Storm) {
    let Storm { disaster, ours, theirs } = storm;
    // The outage and the first seconds after it.
    let seconds = usize::try_from(disaster.away.as_secs()).unwrap_or(0) + 5;
    let most = ours.0.iter().chain(&theirs.0).copied().max().unwrap_or(0).max(1);
    let percent = |count: usize| format!("{:.1} %", count as f64 * 100.0 / clients as f64);
    let (peak, other) = (ours.0.iter().max(), theirs.0.iter().max());
    let (peak, other) = (peak.copied().unwrap_or(0), other.copied().unwrap_or(0));
    let (base, right) = (top + TOP + HEIGHT, LEFT + ACROSS);
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>\
         <text x=\"{right}\" y=\"{}\" text-anchor=\"end\">peak {}, phoenix.js {}</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        top + 20,
        disaster.name,
        top + 20,
        percent(peak),
        percent(other),
        LEFT - 4,
        top + TOP + 10,
        // The value exceeds 100 % if clients dial twice within 100 ms.
        format_args!("{:.0} %", most as f64 * 100.0 / clients as f64),
    );
    for (attempts, colour) in [(theirs, THEIRS), (ours, OURS)] {
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {base}{}\" fill=\"{colour}\" fill-opacity=\".75\"/>",
            outline(attempts, seconds * 10, most)
        );
    }
    let _ = write!(svg, "<path d=\"M{LEFT} {base}h{ACROSS}\" stroke=\"currentColor\"/>");
    let every = if seconds > 10 { 5 } else { 1 };
    for second in (0..=seconds).step_by(every) {
        let x = LEFT + ACROSS * second / seconds;
        let _ = write!(
            svg,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{second}</text>",
            base + 16
        );
    }
    svg.push('\n');
}

/// The outline of the first `buckets` buckets, with its end on the base line. It is scaled so that
/// `most` attempts have the height of the panel.
fn outline(attempts: &Attempts, buckets: usize, most: usize) -> String {
    let mut path = String::new();
    let (mut x, mut height) = (0, 0);
    for bucket in 0..buckets {
        let count = attempts.0.get(bucket).copied().unwrap_or(0);
        // In tenths of a pixel, rounded up so that a single attempt is visible.
        let now = (count * HEIGHT * 10).div_ceil(most);
        if now != height {
            let _ = write!(path, "{}{}", across(&mut x, bucket, buckets), up(height, now));
            height = now;
        }
    }
    if height > 0 {
        let _ = write!(path, "{}{}", across(&mut x, buckets, buckets), up(height, 0));
    }
    path.push('z');
    path
}

fn across(x: &mut usize, bucket: usize, buckets: usize) -> String {
    let now = ACROSS * bucket / buckets;
    let step = now - *x;
    *x = now;
    if step == 0 { String::new() } else { format!("h{step}") }
}

fn up(from: usize, to: usize) -> String {
    let (sign, tenths) = if to >= from { ("-", to - from) } else { ("", from - to) };
    match tenths % 10 {
        0 => format!("v{sign}{}", tenths / 10),
        tenth => format!("v{sign}{}.{tenth}", tenths / 10),
    }
}
