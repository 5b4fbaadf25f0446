//! `phx`: Phoenix Channels on the command line.

mod args;
mod connections;
mod demo;
mod exit;
mod listen;
mod output;
mod push;
mod record;
mod replay;
mod serve;
mod style;

use core::time::Duration;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::exit::Failed;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failed::Local(format!("no runtime: {error}")).report(),
    };
    let done = runtime.block_on(async {
        match command {
            Command::Demo => demo::run().await,
            Command::Serve { addr, token } => serve::run(addr, token).await,
            Command::Run { file, patterns, fixed, grace } => {
                let grace = Duration::from_secs(grace);
                connections::run(connections::Run { file: &file, patterns, fixed, grace }).await
            }
            Command::Check { file } => connections::check(&file),
            Command::Listen { target, topics } => listen::run(&target, topics).await,
            Command::Replay { file } => replay::run(&file),
            Command::Push { target, topic, event, payload } => {
                push::run(&target, &topic, &event, &payload).await
            }
        }
    });
    // Reading standard input cannot be cancelled, so it must not be waited for.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.report(),
    }
}
