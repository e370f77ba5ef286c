//! The benchmark as a smoke test: every scenario runs with little load, and nothing is lost or arrives twice.

use std::process::Command;

#[test]
fn every_scenario_loses_nothing_and_delivers_nothing_twice() {
    let ended = Command::new(env!("CARGO_BIN_EXE_bench")).arg("--quick").status().expect("it starts");
    assert!(ended.success(), "see above");
}
