//! Plots, as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::measure::Problem;

/// A line of a plot: what it is called, and its points.
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its points, in order.
    pub points: Vec<(f64, f64)>,
}

/// What an axis shows.
pub struct Axes<'a> {
    /// Under the horizontal one.
    pub x: &'a str,
    /// Beside the vertical one.
    pub y: &'a str,
    /// What a value of the horizontal one is called.
    pub x_label: &'a dyn Fn(f64) -> String,
}

const SIZE: (u32, u32) = (860, 440);
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 90, 180),
    RGBColor(200, 45, 40),
    RGBColor(240, 150, 30),
    RGBColor(130, 130, 130),
    RGBColor(20, 150, 130),
    RGBColor(130, 70, 170),
    RGBColor(90, 160, 40),
    RGBColor(30, 30, 30),
];
const FONT: &str = "sans-serif";

fn draw(
    size: (u32, u32),
    what: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Problem>,
) -> Result<String, Problem> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(|error| error.to_string())?;
        what(&area)?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

/// Lines over a logarithmic vertical axis and, if `log_x`, a logarithmic horizontal one.
pub fn lines(title: &str, axes: &Axes<'_>, lines: &[Line], log_x: bool) -> Result<String, Problem> {
    let points =
        || lines.iter().flat_map(|line| line.points.iter().copied()).filter(|&(x, y)| x > 0.0 && y > 0.0);
    let range = |of: &dyn Fn((f64, f64)) -> f64| {
        let values = || points().map(of);
        let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
        if low <= high { (low, high) } else { (1.0, 10.0) }
    };
    let ((x_low, x_high), (y_low, y_high)) = (range(&|point| point.0), range(&|point| point.1));
    let y_range = (y_low * 0.8..y_high * 1.25).log_scale();
    draw(SIZE, |area| {
        let mut builder = ChartBuilder::on(area);
        builder.caption(title, (FONT, 18)).margin(12).x_label_area_size(44).y_label_area_size(70);
        // The two charts differ in type only.
        macro_rules! chart {
            ($x_range:expr) => {{
                let mut chart =
                    builder.build_cartesian_2d($x_range, y_range).map_err(|error| error.to_string())?;
                chart
                    .configure_mesh()
                    .x_desc(axes.x)
                    .y_desc(axes.y)
                    .x_labels(8)
                    .x_label_formatter(&|x| (axes.x_label)(*x))
                    .y_label_formatter(&|y| short(*y))
                    .light_line_style(WHITE)
                    .draw()
                    .map_err(|error| error.to_string())?;
                for (number, line) in lines.iter().enumerate() {
                    let colour = COLOURS[number % COLOURS.len()];
                    let points = line.points.iter().copied().filter(|&(x, y)| x > 0.0 && y > 0.0);
                    chart
                        .draw_series(LineSeries::new(points, colour.stroke_width(2)))
                        .map_err(|error| error.to_string())?
                        .label(&line.name)
                        .legend(move |(x, y)| {
                            PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3))
                        });
                }
                chart
                    .configure_series_labels()
                    .position(SeriesLabelPosition::UpperLeft)
                    .background_style(WHITE.mix(0.8))
                    .label_font((FONT, 13))
                    .draw()
                    .map_err(|error| error.to_string())?;
            }};
        }
        if log_x {
            chart!((x_low..x_high.max(x_low * 1.01)).log_scale());
        } else {
            chart!(x_low..x_high.max(x_low + 1e-9));
        }
        Ok(())
    })
}

/// Groups of horizontal bars, each group with a scale of its own, so that unlike things stand side by side.
pub fn bars(title: &str, groups: &[(String, Vec<(String, f64)>)]) -> Result<String, Problem> {
    const BAR: i32 = 20;
    const GAP: i32 = 34;
    const LEFT: i32 = 190;
    const LONGEST: f64 = 500.0;
    let count: usize = groups.iter().map(|(_, bars)| bars.len()).sum();
    let height = 50 + count as i32 * BAR + groups.len() as i32 * GAP;
    draw((SIZE.0, height as u32), |area| {
        let text = |text: &str, at: (i32, i32), size: i32| -> Result<(), Problem> {
            let style = (FONT, size).into_font().color(&BLACK);
            area.draw_text(text, &style, at).map_err(|error| error.to_string().into())
        };
        text(title, (12, 10), 18)?;
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in groups.iter().flat_map(|(_, bars)| bars) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let mut y = 40;
        for (group, bars) in groups {
            text(group, (12, y + 8), 14)?;
            y += GAP - 6;
            let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
            for (name, value) in bars {
                let colour =
                    COLOURS[names.iter().position(|known| known == name).unwrap_or(0) % COLOURS.len()];
                let end = LEFT + (value / longest * LONGEST) as i32;
                let bar = Rectangle::new([(LEFT, y + 3), (end.max(LEFT + 1), y + BAR - 3)], colour.filled());
                area.draw(&bar).map_err(|error| error.to_string())?;
                text(name, (24, y + 4), 12)?;
                text(&short(*value), (end + 6, y + 4), 12)?;
                y += BAR;
            }
            y += 6;
        }
        Ok(())
    })
}

/// A figure in a few characters.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.0} K", value / 1e3),
        size if size >= 1e3 => format!("{:.1} K", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// What a place on an axis that shows the tail is called. A percentile stands at 1 / (1 - p), on a logarithmic axis.
pub fn tail_label(x: f64) -> String {
    let percent = 100.0 - 100.0 / x;
    let text = format!("{percent:.3}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_of_anything_are_drawn() {
        let axes = Axes { x: "percentile", y: "ms", x_label: &tail_label };
        let line = |points: &[(f64, f64)]| Line { name: "one".to_owned(), points: points.to_vec() };
        for of in [&[][..], &[(1.0, 1.0)], &[(1.0, 0.0), (2.0, 5.0)], &[(1.0, 5.0), (1000.0, 7.0)]] {
            for log_x in [false, true] {
                let svg = lines("t", &axes, &[line(of)], log_x).unwrap();
                assert!(svg.contains("</svg>") && svg.contains("one"), "{svg}");
            }
        }
        assert!(bars("t", &[]).unwrap().contains("</svg>"));
        assert!(bars("t", &[("g".to_owned(), vec![("a".to_owned(), 0.0)])]).unwrap().contains("0.00"));
    }

    #[test]
    fn the_tail_is_named_by_its_percentile() {
        for (percent, label) in [(50.0, "50 %"), (99.0, "99 %"), (99.9, "99.9 %"), (99.99, "99.99 %")] {
            assert_eq!(tail_label(100.0 / (100.0 - percent)), label);
        }
    }
}
