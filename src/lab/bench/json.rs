//! The study as data. Pure. `docs/bench.md` documents the fields.

use serde_json::{Map, Value, json};
use stallscope_probes::Reading;

use super::stats::Spread;
use super::summary::{FIGURES, Row, Summary};

/// One object.
pub(super) fn json(summary: &Summary) -> Value {
    json!({
        "schema": "stallscope-bench",
        "schema_version": 1,
        "fine": summary.is_fine(),
        "machine": summary.machine,
        "plan": {
            "hash": summary.plan.hash(),
            "rounds": summary.plan.rounds,
            "time_ms": summary.plan.time_ms,
            "warm_up_ms": summary.plan.warm_up_ms,
            "idle_connections": summary.plan.idle_connections,
            "saturation": summary.plan.saturation,
            "build_sha256": summary.plan.build,
        },
        "baseline": summary.baseline(),
        "missing_runs": summary.missing,
        "notes": summary.notes,
        "cells": summary.rows.iter().map(cell).collect::<Vec<_>>(),
        "steps": summary.steps,
        "runs": summary.runs,
    })
}

fn cell(row: &Row) -> Value {
    let axes: Map<String, Value> =
        row.axes.iter().map(|(axis, value)| (axis.replace(' ', "_"), json!(value))).collect();
    let mut figures = Map::new();
    for ((figure, reading), ratio) in FIGURES.iter().zip(&row.figures).zip(&row.ratios) {
        figures.insert(figure.id.to_owned(), reading_json(reading, ratio.as_ref()));
    }
    let rounds: Vec<Value> =
        row.rounds.iter().map(|(round, rate)| json!({"round": round, "rate": rate})).collect();
    json!({
        "label": row.label,
        "key": row.key,
        "axes": axes,
        "runs_measured": row.measured,
        "runs_failed": row.failed,
        "figures": figures,
        "requests_per_s_by_round": rounds,
        "errors": row.errors,
        "acknowledged": row.records.map(|(acknowledged, _)| acknowledged),
        "in_kafka": row.records.map(|(_, in_kafka)| in_kafka),
        "problems": row.problems.iter().map(|(problem, runs)| json!({"problem": problem, "runs": runs})).collect::<Vec<_>>(),
        "server_command": row.server_command,
        "load_command": row.load_command,
    })
}

/// An absent figure has a reason in the place of values.
fn reading_json(reading: &Reading<Spread>, ratio: Option<&Spread>) -> Value {
    match reading {
        Reading::Got(spread) => json!({
            "rounds": spread.rounds,
            "min": spread.min,
            "median": spread.median,
            "max": spread.max,
            "ratio_to_baseline": ratio,
        }),
        Reading::Absent(absence) => json!({ "absent": absence.detail }),
    }
}
