//! Simulation, crash, conformance, golden files and tidiness. What several tests share lives here.
