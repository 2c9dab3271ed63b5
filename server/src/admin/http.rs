//! HTTP/1.1 as far as it is needed: small requests, a bounded number of connections, and none of them for long.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{State, Verdict};
use crate::limits::{HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_WAIT, HTTP_LIFE, HTTP_LIFE_GRACE};
use crate::management::{self, Peer};
use crate::metrics::CONTENT_TYPE;

/// How often the shards are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What is waited after a connection could not be accepted, for want of descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the state says that it is over.
pub async fn serve(listener: std::net::TcpListener, state: Arc<State>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the management listener cannot be used"),
    };
    tokio::spawn(accept(listener, router(Arc::clone(&state))));
    tokio::spawn(look(Arc::clone(&state)));
    tokio::spawn(sample(Arc::clone(&state)));
    // What was spawned ends with the runtime.
    state.end.notified().await;
}

/// Looks at the shards again and again.
async fn look(state: Arc<State>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        state.look();
    }
}

/// Looks at what is asked about in the management, for its rates.
async fn sample(state: Arc<State>) {
    let mut looks = interval(management::SAMPLED_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Some(api) = state.api.get().cloned()
            && let Err(problem) = api.sample(&state).await
        {
            tracing::debug!(%problem, "rates could not be looked at");
        }
    }
}

async fn accept(listener: TcpListener, router: Router) {
    let room = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match Arc::clone(&room).try_acquire_owned() {
                Ok(permit) => drop(tokio::spawn(connection(stream, peer, router.clone(), permit))),
                Err(_) => {
                    tracing::warn!(%peer, "an HTTP connection was closed: there are {HTTP_CONNECTIONS_MAX} already");
                }
            },
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection, which ends after a while whatever its peer does.
async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, _permit: OwnedSemaphorePermit) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HTTP_HEAD_WAIT).max_buf_size(HTTP_HEAD_BYTES_MAX);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = match timeout(HTTP_LIFE, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            timeout(HTTP_LIFE_GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection broke");
    }
}

fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/{*path}", any(api))
        .fallback(async || problem(StatusCode::NOT_FOUND, "there is nothing under this path"))
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here")
        })
        .with_state(state)
}

async fn api(extract::State(state): extract::State<Arc<State>>, request: extract::Request) -> Response {
    match state.api.get().cloned() {
        Some(api) => management::serve(&api, &state, request).await,
        None => problem(StatusCode::SERVICE_UNAVAILABLE, "the node is starting"),
    }
}

async fn live(extract::State(state): extract::State<Arc<State>>) -> Response {
    verdict(state.health().live())
}

async fn ready(extract::State(state): extract::State<Arc<State>>) -> Response {
    verdict(state.health().ready())
}

async fn metrics(extract::State(state): extract::State<Arc<State>>) -> Response {
    match state.metrics() {
        Some(metrics) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.exposition()).into_response(),
        None => problem(StatusCode::SERVICE_UNAVAILABLE, "the node is starting"),
    }
}

fn verdict(Verdict { good, body }: Verdict) -> Response {
    json(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
}

fn problem(status: StatusCode, error: &str) -> Response {
    json(status, format!(r#"{{"error":"{error}"}}"#))
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
