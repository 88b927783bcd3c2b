//! Lines over two logarithmic axes, as SVG.

use plotters::prelude::{
    ChartBuilder, IntoDrawingArea as _, IntoLogRange as _, LineSeries, PathElement, RGBColor,
    SVGBackend, SeriesLabelPosition,
};
use plotters::style::{BLACK, Color as _, WHITE};

const SIZE: (u32, u32) = (860, 480);
/// Told apart by most kinds of eyes (Okabe and Ito, 2008).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(204, 121, 167),
];

/// What the picture and its axes show.
#[derive(Clone, Copy, Debug)]
pub struct Axes<'a> {
    /// Above it.
    pub title: &'a str,
    /// To the right.
    pub x: &'a str,
    /// Upwards.
    pub y: &'a str,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// By x; all above zero.
    pub points: Vec<(f64, f64)>,
}

/// Draws it.
///
/// # Errors
/// In words; also when there is no point, or one that no logarithmic axis has.
pub fn chart(axes: &Axes<'_>, lines: &[Line]) -> Result<String, String> {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    if points().next().is_none() || points().any(|(x, y)| !(x > 0.0 && y > 0.0)) {
        return Err(format!("{}: nothing that can be drawn", axes.title));
    }
    let mut out = String::new();
    draw(
        &mut out,
        axes,
        lines,
        (
            range(points().map(|it| it.0)),
            range(points().map(|it| it.1)),
        ),
    )
    .map_err(|error| format!("{}: {error}", axes.title))?;
    Ok(out)
}

type Range = std::ops::Range<f64>;

/// From somewhat below the smallest to somewhat above the largest.
fn range(values: impl Iterator<Item = f64>) -> Range {
    let (least, most) = values.fold((f64::MAX, f64::MIN), |(least, most), value| {
        (least.min(value), most.max(value))
    });
    least / 1.3..most * 1.3
}

fn draw(
    out: &mut String,
    axes: &Axes<'_>,
    lines: &[Line],
    (x, y): (Range, Range),
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(out, SIZE).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(axes.title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d(x.log_scale(), y.log_scale())
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .draw()
        .map_err(|error| failed(&error))?;
    for (line, color) in lines.iter().zip(COLORS.iter().cycle()) {
        let series =
            LineSeries::new(line.points.iter().copied(), color.stroke_width(2)).point_size(3);
        let legend = *color;
        chart
            .draw_series(series)
            .map_err(|error| failed(&error))?
            .label(line.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], legend.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AXES: Axes<'_> = Axes {
        title: "a title",
        x: "clients",
        y: "milliseconds",
    };

    #[test]
    fn a_picture_has_its_title_its_axes_and_its_lines() {
        let line = Line {
            name: "writes".to_owned(),
            points: vec![(1.0, 0.5), (256.0, 40.0)],
        };
        let text = chart(&AXES, &[line]).unwrap();
        for part in [
            "a title",
            "clients",
            "milliseconds",
            "writes",
            "<polyline",
            "</svg>",
        ] {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn what_has_no_place_on_an_axis_is_an_error() {
        let line = |y| Line {
            name: String::new(),
            points: vec![(1.0, y)],
        };
        assert!(chart(&AXES, &[]).is_err());
        assert!(chart(&AXES, &[line(0.0)]).is_err());
        assert!(chart(&AXES, &[line(f64::NAN)]).is_err());
    }
}
