//! Tables and plots of a run. The only module with floats, because its results are only displayed.

use crate::{
    ELASTICITIES,
    honest::Size,
    price,
    row::{Row, Topic, bound_text},
};
use plotters::prelude::*;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A table or plot could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be written.
    #[error("{}: {source}", path.display())]
    File {
        /// File that was being written.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The plot could not be drawn.
    #[error("{}: {reason}", path.display())]
    Plot {
        /// File that was being written.
        path: PathBuf,
        /// Error of the plotting library.
        reason: String,
    },
}

/// A curve: its label and its points.
type Curve = (String, Vec<(f64, f64)>);

/// Writes all tables and plots into `directory`. Returns the names of the files.
///
/// # Errors
/// [`Error`] names the file.
pub fn write(directory: &Path, rows: &[Row], sizes: &[Size]) -> Result<Vec<String>, Error> {
    fs::create_dir_all(directory).map_err(|source| Error::File { path: directory.into(), source })?;
    let tables = [
        ("outcomes.csv", outcomes(rows)),
        ("reward.csv", reward(sizes)),
        ("growth.csv", growth(sizes)),
        ("prices.csv", prices()),
    ];
    let mut names = Vec::new();
    for (name, text) in tables {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|source| Error::File { path, source })?;
        names.push(name.to_owned());
    }
    let reward = [("pay".to_owned(), reward_points(sizes))];
    let labels = ("verified contribution, log10 SYNC", "pay, log10 SYNC");
    lines(&directory.join("reward.svg"), "Reward against contribution", labels, &reward)?;
    let labels = ("nodes, log10", "coefficient");
    lines(&directory.join("gini.svg"), "Gini coefficient over growth", labels, &gini_curves(sizes))?;
    let labels = ("nodes, log10", "nodes, log10");
    lines(
        &directory.join("nakamoto.svg"),
        "Nakamoto coefficient over growth",
        labels,
        &nakamoto_curves(sizes),
    )?;
    for lag in 0..3 {
        let name = format!("prices-lag-{lag}.svg");
        let title = format!("Price after demand doubled, lag {lag}");
        lines(&directory.join(&name), &title, ("epochs", "price over price before"), &price_curves(lag))?;
        names.push(name);
    }
    bars(&directory.join("attacks.svg"), rows)?;
    names.extend(["reward.svg", "gini.svg", "nakamoto.svg", "attacks.svg"].map(str::to_owned));
    Ok(names)
}

fn outcomes(rows: &[Row]) -> String {
    let mut text = String::from("topic,name,region,figure,unit,bound,runs,holds\n");
    for row in rows {
        let Row { topic, name, region, figure, unit, bound, runs } = row;
        let (topic, bound) = (format!("{topic:?}").to_lowercase(), bound_text(*bound));
        let (runs, holds) = (runs.text(), row.holds());
        text += &format!("{topic},\"{name}\",\"{region}\",{figure},\"{unit}\",\"{bound}\",{runs},{holds}\n");
    }
    text
}

fn reward(sizes: &[Size]) -> String {
    let mut text = String::from("nodes,contribution_grains,pay_grains\n");
    for size in sizes {
        for (contribution, pay) in &size.sample {
            text += &format!("{},{contribution},{pay}\n", size.nodes);
        }
    }
    text
}

fn growth(sizes: &[Size]) -> String {
    let mut text =
        String::from("nodes,gini_contribution_ppb,gini_pay_ppb,nakamoto_contribution,nakamoto_pay\n");
    for size in sizes {
        let Size { nodes, gini_contribution, gini_pay, nakamoto_contribution, nakamoto_pay, .. } = size;
        text += &format!("{nodes},{gini_contribution},{gini_pay},{nakamoto_contribution},{nakamoto_pay}\n");
    }
    text
}

const RESPONSE_EPOCHS: usize = 400;

fn prices() -> String {
    let mut text = String::from("lag,bucket,elasticity_hundredths,epoch,price\n");
    for lag in 0..3 {
        for (elasticity, bucket) in responses() {
            let prices = price::respond(elasticity, lag, bucket, RESPONSE_EPOCHS);
            for (epoch, price) in prices.iter().enumerate() {
                text += &format!("{lag},{bucket},{elasticity},{epoch},{price}\n");
            }
        }
    }
    text
}

fn responses() -> impl Iterator<Item = (u64, bool)> {
    ELASTICITIES.into_iter().map(|elasticity| (elasticity, true)).chain([(1_800, false)])
}

/// A number as a coordinate, for display only.
#[expect(clippy::cast_precision_loss, reason = "a place on a picture")]
fn place(value: u128) -> f64 {
    value as f64
}

fn log10(value: u128) -> f64 {
    place(value.max(1)).log10()
}

fn reward_points(sizes: &[Size]) -> Vec<(f64, f64)> {
    let mut points: Vec<(u128, u128)> = sizes.last().map(|size| size.sample.clone()).unwrap_or_default();
    points.sort_unstable();
    points.iter().map(|(contribution, pay)| (log10(*contribution) - 9.0, log10(*pay) - 9.0)).collect()
}

fn gini_curves(sizes: &[Size]) -> [Curve; 2] {
    let curve = |of: fn(&Size) -> u64| {
        sizes.iter().map(|size| (log10(size.nodes as u128), place(of(size).into()) / 1e9)).collect()
    };
    [
        ("contribution".into(), curve(|size| size.gini_contribution)),
        ("pay".into(), curve(|size| size.gini_pay)),
    ]
}

fn nakamoto_curves(sizes: &[Size]) -> [Curve; 2] {
    let curve = |of: fn(&Size) -> usize| {
        sizes.iter().map(|size| (log10(size.nodes as u128), log10(of(size) as u128))).collect()
    };
    [
        ("contribution".into(), curve(|size| size.nakamoto_contribution)),
        ("pay".into(), curve(|size| size.nakamoto_pay)),
    ]
}

fn price_curves(lag: usize) -> Vec<Curve> {
    let curve = |(elasticity, bucket)| {
        let prices = price::respond(elasticity, lag, bucket, RESPONSE_EPOCHS);
        let before = place(prices[0]);
        let points =
            prices.iter().enumerate().map(|(epoch, price)| (place(epoch as u128), place(*price) / before));
        let name =
            format!("elasticity {}{}", place(elasticity.into()) / 100.0, if bucket { "" } else { ", bare" });
        (name, points.collect())
    };
    responses().map(curve).collect()
}

fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return 0.0..1.0;
    }
    let margin = ((high - low) * 0.05).max(1e-9);
    low - margin..high + margin
}

fn lines(path: &Path, title: &str, labels: (&str, &str), curves: &[Curve]) -> Result<(), Error> {
    let failed = |reason: String| Error::Plot { path: path.into(), reason };
    draw_lines(path, title, labels, curves).map_err(|error| failed(error.to_string()))
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_lines(path: &Path, title: &str, labels: (&str, &str), curves: &[Curve]) -> Drawn {
    let root = SVGBackend::new(path, (900, 540)).into_drawing_area();
    root.fill(&WHITE)?;
    let points = || curves.iter().flat_map(|curve| &curve.1);
    let (x, y) = (range(points().map(|point| point.0)), range(points().map(|point| point.1)));
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 22))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    chart.configure_mesh().x_desc(labels.0).y_desc(labels.1).draw()?;
    for (index, (name, points)) in curves.iter().enumerate() {
        let style = Palette99::pick(index).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    Ok(root.present()?)
}

/// Draws profits on a logarithmic scale: losses to the left, gains to the right.
fn bars(path: &Path, rows: &[Row]) -> Result<(), Error> {
    let failed = |reason: String| Error::Plot { path: path.into(), reason };
    draw_bars(path, rows).map_err(|error| failed(error.to_string()))
}

fn draw_bars(path: &Path, rows: &[Row]) -> Drawn {
    let profits = |row: &&Row| matches!(row.topic, Topic::Attack | Topic::Published | Topic::Mutant);
    let rows: Vec<&Row> = rows.iter().filter(profits).filter(|row| row.unit != "parts per billion").collect();
    let height = u32::try_from(60 + 22 * rows.len()).unwrap_or(u32::MAX);
    let root = SVGBackend::new(path, (1_100, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let text = |text: &str, x: i32, y: i32| {
        root.draw(&Text::new(text.to_owned(), (x, y), ("sans-serif", 14).into_font()))
    };
    text("Attacker's profit per epoch, log10: losses left, gains right of the line", 20, 16)?;
    let mut y = 44;
    for row in rows {
        let size = log10(row.figure.unsigned_abs() + 1) * 22.0;
        #[expect(clippy::cast_possible_truncation, reason = "a few hundred pixels")]
        let length = size.round() as i32;
        let (left, right) = if row.figure < 0 { (720 - length, 720) } else { (720, 720 + length) };
        let colour = if row.figure < 0 { GREEN } else { RED };
        root.draw(&Rectangle::new([(left, y), (right, y + 14)], colour.mix(0.6).filled()))?;
        text(&row.name, 20, y)?;
        y += 22;
    }
    root.draw(&PathElement::new([(720, 36), (720, y)], BLACK.stroke_width(1)))?;
    Ok(root.present()?)
}
