//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Advertise, ServerConfig};

/// One broker for Kafka's job and for RabbitMQ's.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

/// What to do. Without a command, it is `serve`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker.
    Serve(Serve),
    /// Look into a data directory, or a part of one, that no broker serves.
    #[command(subcommand)]
    Log(Log),
}

/// What to do with what is stored. A PATH is a data directory, a partition's directory, a shard's, a journal's, or any
/// one file of these.
#[derive(Debug, Subcommand)]
pub enum Log {
    /// Show what is stored, structure by structure.
    Dump {
        /// What to look at
        path: PathBuf,
        /// Show the records of batches that are not compressed, too
        #[arg(long)]
        records: bool,
    },
    /// Check everything that can be checked; fails if anything is damaged.
    Verify {
        /// What to look at
        path: PathBuf,
    },
    /// Copy what is sound into fresh partition directories.
    Salvage {
        /// What to save
        path: PathBuf,
        /// Where to; new, or empty
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Take over partitions of Apache Kafka: directories named TOPIC-NUMBER, copied from a broker that was stopped.
    Import {
        /// The directories, all of one topic: its partitions, or some of them
        #[arg(required = true, value_name = "SOURCE")]
        sources: Vec<PathBuf>,
        /// The data directory to put them into; made if it is not there
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// What the topic is to be called [default: as in Kafka]
        #[arg(long, value_name = "NAME")]
        topic: Option<String>,
    },
}

/// How to run the broker. What is given here comes before the file.
#[derive(Debug, Default, Args)]
pub struct Serve {
    /// A configuration file; docs/configuration.md lists its keys
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory that holds everything [default: ./millstream-data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Shards to run, one thread each [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(millstream_engine::limits::SHARDS_MAX)))]
    shards: Option<u16>,
    /// Where Kafka clients are listened for; port 0 picks a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "ADDR")]
    kafka: Option<SocketAddr>,
    /// Where RabbitMQ clients are listened for; port 0 picks a free one [default: 127.0.0.1:5672]
    #[arg(long, value_name = "ADDR")]
    amqp: Option<SocketAddr>,
    /// Where health, metrics and RabbitMQ's management are answered over HTTP; port 0 picks a free one [default: 127.0.0.1:15672]
    #[arg(long, visible_alias = "management", value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// What clients are told to connect to [default: the address at which they reached us]
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<Advertise>,
    /// A file with RabbitMQ's definitions, to be loaded at each start
    #[arg(long, value_name = "FILE")]
    load_definitions: Option<String>,
}

impl Cli {
    /// The command, which may have been left out.
    pub fn command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

impl Serve {
    /// The settings: defaults, then the file, then the flags.
    pub fn config(self) -> Result<ServerConfig, String> {
        let mut config = match &self.config {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| error.to_string())
                .and_then(|text| ServerConfig::parse(&text))
                .map_err(|error| format!("{}: {error}", path.display()))?,
            None => ServerConfig::default(),
        };
        config.data_dir = self.data.unwrap_or(config.data_dir);
        config.shards = self.shards.or(config.shards);
        config.kafka_listen = self.kafka.unwrap_or(config.kafka_listen);
        config.amqp_listen = self.amqp.unwrap_or(config.amqp_listen);
        config.http_listen = self.http.unwrap_or(config.http_listen);
        config.kafka_advertise = self.advertise.or(config.kafka_advertise);
        config.load_definitions = self.load_definitions.unwrap_or(config.load_definitions);
        if !config.load_definitions.is_empty() {
            let path = &config.load_definitions;
            let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            config.definitions = Some(text);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<ServerConfig, String> {
        let cli = Cli::try_parse_from([&["millstream"], args].concat()).map_err(|error| error.to_string())?;
        match cli.command() {
            Command::Serve(serve) => serve.config(),
            Command::Log(_) => Err("this is another command".to_owned()),
        }
    }

    #[test]
    fn no_arguments_serve_with_defaults() {
        let config = config(&[]).unwrap();
        assert_eq!(config.kafka_listen.to_string(), "127.0.0.1:9092");
        assert_eq!(config.amqp_listen.to_string(), "127.0.0.1:5672");
        assert_eq!(config.http_listen.to_string(), "127.0.0.1:15672");
        assert_eq!((config.data_dir.as_str(), config.shards), ("./millstream-data", None));
    }

    #[test]
    fn flags_work_with_and_without_the_command() {
        for command in [&["serve"][..], &[]] {
            let flags = [
                "--data",
                "d",
                "--shards",
                "3",
                "--kafka",
                "[::]:0",
                "--amqp",
                "[::1]:3",
                "--http",
                "[::1]:2",
                "--advertise",
                "h:1",
            ];
            let config = config(&[command, &flags].concat()).unwrap();
            assert_eq!((config.data_dir.as_str(), config.shards), ("d", Some(3)));
            assert_eq!(config.kafka_listen.to_string(), "[::]:0");
            assert_eq!(config.amqp_listen.to_string(), "[::1]:3");
            assert_eq!(config.http_listen.to_string(), "[::1]:2");
            assert_eq!(config.kafka_advertise.unwrap().to_string(), "h:1");
        }
    }

    #[test]
    fn flags_that_cannot_be_are_refused() {
        for flags in [
            ["--shards", "0"],
            ["--shards", "257"],
            ["--kafka", "nowhere"],
            ["--http", ":1"],
            ["--advertise", ":"],
        ] {
            assert!(config(&flags).is_err(), "{flags:?}");
        }
        assert!(config(&["--config", "/no/such/file"]).unwrap_err().contains("/no/such/file"));
    }
}
