//! A request under `/api`: who asks, what for, whether they may, what comes of it.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use millstream_engine::reactor::node::Caller;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::json::Fields;
use super::limits::Whose;
use super::node::Node;
use super::problem::Problem;
use super::query::{Listing, Query, check_page};
use super::routes::Resource;
use super::samples::Samples;
use super::session::Session;
use super::{
    bindings, connections, definitions, exchanges, health, limits, messages, overview, parameters, policies,
    queues, users, vhosts,
};
use crate::admin::State;
use crate::amqp::topology::Topology;
use crate::limits::{
    HTTP_BODY_BYTES_MAX, HTTP_BODY_WAIT, HTTP_SMALL_BODY_BYTES, MANAGEMENT_REQUESTS_MAX,
    MANAGEMENT_ROWS_AT_ONCE,
};

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What is told of the node, and what is set for it.
#[derive(Clone, Debug)]
pub struct About {
    /// What the broker calls itself.
    pub product: String,
    /// Which version it says that it is.
    pub version: String,
    /// Whether the user `guest` may come from this machine only.
    pub guest_is_local: bool,
    /// Where it listens: protocol and address.
    pub listeners: Vec<(&'static str, SocketAddr)>,
}

/// What serves requests under `/api`.
#[derive(Debug)]
pub struct Api {
    /// The node.
    pub(super) node: Node,
    /// About the node.
    pub(super) about: About,
    /// What has changed how fast.
    samples: Mutex<Samples>,
    /// How many requests may be worked on.
    room: Semaphore,
    /// How many large bodies may be arriving.
    large_bodies: Semaphore,
}

impl Api {
    /// For a node that is reached so.
    pub fn new(caller: Caller, about: About) -> Api {
        Api {
            node: Node::new(caller),
            about,
            samples: Mutex::default(),
            room: Semaphore::new(MANAGEMENT_REQUESTS_MAX),
            large_bodies: Semaphore::new(MANAGEMENT_REQUESTS_MAX),
        }
    }

    /// Looks at vhosts, queues and so on.
    pub(super) fn look<R>(&self, work: impl FnOnce(&Topology) -> R) -> R {
        self.node.look(work)
    }

    /// What has changed how fast.
    pub(super) fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request gets.
#[derive(Debug)]
pub enum Answer {
    /// 200 with a value.
    Value(Value),
    /// 200 with a list that was written already.
    Text(String),
    /// 201, and where it is, from where the request went.
    Created(Option<String>),
    /// 204
    Done,
    /// 503 with a value: a check has failed.
    Unwell(Value),
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let json = |status: StatusCode, body: String| {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            ];
            (status, headers, body).into_response()
        };
        match self {
            Answer::Value(value) => json(StatusCode::OK, value.to_string()),
            Answer::Text(text) => json(StatusCode::OK, text),
            Answer::Unwell(value) => json(StatusCode::SERVICE_UNAVAILABLE, value.to_string()),
            Answer::Done => StatusCode::NO_CONTENT.into_response(),
            Answer::Created(location) => {
                let mut response = StatusCode::CREATED.into_response();
                if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                response
            }
        }
    }
}

/// A request that may be done.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The node.
    pub api: &'a Api,
    /// Who asks.
    pub session: &'a Session,
    /// What a list is asked for.
    pub query: &'a Query,
    /// The body; empty if there was none.
    pub body: &'a Map<String, Value>,
    /// The wall clock.
    pub now_ms: i64,
}

impl<'a> Asked<'a> {
    /// The body's fields.
    pub fn fields(self) -> Fields<'a> {
        Fields(self.body)
    }

    /// Looks at vhosts, queues and so on.
    pub fn look<R>(self, work: impl FnOnce(&Topology) -> R) -> R {
        self.api.look(work)
    }

    /// The names of the vhosts that are asked about: one, or all that the user may see into.
    pub fn vhosts(self, one: Option<&[u8]>) -> Result<Vec<Vec<u8>>, Problem> {
        self.look(|topology| match one {
            Some(name) => self.session.view(topology, name).map(|vhost| vec![vhost.name.clone()]),
            None => {
                let seen = topology.vhosts().filter(|vhost| self.session.sees(vhost));
                Ok(seen.map(|vhost| vhost.name.clone()).collect())
            }
        })
    }
}

/// Where the objects of a list come from.
pub trait Source: Sync {
    /// What names one of them.
    type Key: Send + Sync;

    /// What a search for names looks at.
    fn name<'k>(&self, key: &'k Self::Key) -> &'k [u8];

    /// Some of them. What has just gone is left out.
    fn values(&self, keys: &[Self::Key]) -> impl Future<Output = Result<Vec<Value>, Problem>> + Send;
}

/// Writes a list, some of it at a time. Without an order only the objects of the page are looked at.
pub async fn list<S: Source>(query: &Query, source: S, keys: Vec<S::Key>) -> Result<Answer, Problem> {
    let total = keys.len();
    let mut keys: Vec<S::Key> = keys.into_iter().filter(|key| query.wants(source.name(key))).collect();
    let filtered = keys.len();
    let mut is_cut = false;
    if let Some(page) = query.page() {
        check_page(page, filtered)?;
        if !query.is_sorted() {
            is_cut = true;
            keys = keys.into_iter().skip((page.number - 1) * page.size).take(page.size).collect();
        }
    }
    let mut listing = Listing::new(query, total, filtered);
    for some in keys.chunks(MANAGEMENT_ROWS_AT_ONCE) {
        for value in source.values(some).await? {
            listing.push(&value)?;
        }
        // Whoever asks for health is not to wait for a long list.
        tokio::task::yield_now().await;
    }
    Ok(Answer::Text(listing.finish(is_cut)?))
}

/// A list of what is known without asking anybody.
pub struct Plain<'a, F> {
    /// The node.
    pub api: &'a Api,
    /// What is told of an object, given its vhost and its name.
    pub value: F,
}

impl<F: Fn(&Topology, &(Vec<u8>, Vec<u8>)) -> Option<Value> + Sync> Source for Plain<'_, F> {
    type Key = (Vec<u8>, Vec<u8>);

    fn name<'k>(&self, key: &'k Self::Key) -> &'k [u8] {
        &key.1
    }

    async fn values(&self, keys: &[Self::Key]) -> Result<Vec<Value>, Problem> {
        Ok(self.api.look(|topology| keys.iter().filter_map(|key| (self.value)(topology, key)).collect()))
    }
}

/// A list whose objects are at hand.
pub async fn list_values(query: &Query, values: Vec<Value>) -> Result<Answer, Problem> {
    struct AtHand;
    impl Source for AtHand {
        type Key = Value;

        fn name<'k>(&self, key: &'k Value) -> &'k [u8] {
            key.get("name").and_then(Value::as_str).unwrap_or_default().as_bytes()
        }

        async fn values(&self, keys: &[Value]) -> Result<Vec<Value>, Problem> {
            Ok(keys.to_vec())
        }
    }
    list(query, AtHand, values).await
}

/// Serves a request; `path` is what follows `/api/`.
pub async fn serve(api: &Api, state: &State, request: Request) -> Response {
    let head = *request.method() == Method::HEAD;
    let answer = answer(api, state, request).await;
    let mut response = answer.map_or_else(IntoResponse::into_response, IntoResponse::into_response);
    if head {
        *response.body_mut() = Body::empty();
    }
    response
}

async fn answer(api: &Api, state: &State, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix("/api/").unwrap_or_default();
    let method = if parts.method == Method::HEAD { Method::GET } else { parts.method };
    api.node.refresh().await?;
    let peer =
        parts.extensions.get::<Peer>().map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0);
    let session =
        api.look(|topology| Session::begin(&parts.headers, peer, api.about.guest_is_local, topology))?;
    let resource = Resource::of(path).ok_or_else(Problem::no_object)?;
    if !resource.methods().contains(&method) {
        return Ok(not_allowed(&method, resource.methods()));
    }
    session.needs(resource.role(&method))?;
    let query = Query::read(parts.uri.query().unwrap_or_default())?;
    let body = read_body(api, body, &method, &resource, &parts.headers).await?;
    let _room = api.room.acquire().await.map_err(|_| Problem::unavailable("the node is stopping"))?;
    let body = parse_body(&body, &resource)?;
    let now_ms = api.node.now().0;
    let asked = Asked { api, session: &session, query: &query, body: &body, now_ms };
    let answer = dispatch(asked, &resource, &method, state).await?;
    Ok(match answer {
        Answer::Value(value) => Answer::Text(query.cut(&value)),
        answer => answer,
    }
    .into_response())
}

fn not_allowed(method: &Method, methods: &[Method]) -> Response {
    let names: Vec<&str> =
        ["HEAD"].into_iter().chain(methods.iter().map(Method::as_str)).chain(["OPTIONS"]).collect();
    let allowed = HeaderValue::try_from(names.join(", ")).expect("methods are plain text");
    let mut response = if *method == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        let body = json!({"error": "method_not_allowed", "reason": format!("{method} is not possible here")});
        let json = [(header::CONTENT_TYPE, "application/json")];
        (StatusCode::METHOD_NOT_ALLOWED, json, body.to_string()).into_response()
    };
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

/// Reads a body. Whoever takes long keeps nobody from being served but others with large bodies.
async fn read_body(
    api: &Api,
    body: Body,
    method: &Method,
    resource: &Resource,
    headers: &HeaderMap,
) -> Result<Bytes, Problem> {
    // A body that nobody needs is not waited for.
    if matches!(*method, Method::GET | Method::DELETE) && !matches!(resource, Resource::UsersBulkDelete) {
        return Ok(Bytes::new());
    }
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let most = length.unwrap_or(HTTP_BODY_BYTES_MAX);
    if most > HTTP_BODY_BYTES_MAX {
        return Err(Problem::too_large(HTTP_BODY_BYTES_MAX));
    }
    let reading = async {
        let large = most > HTTP_SMALL_BODY_BYTES;
        let _turn = if large { api.large_bodies.acquire().await.ok() } else { None };
        to_bytes(body, HTTP_BODY_BYTES_MAX).await
    };
    match timeout(HTTP_BODY_WAIT, reading).await {
        Err(_) => Err(Problem::too_slow()),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(match std::error::Error::source(&error) {
            Some(source) if source.to_string().contains("length limit") => {
                Problem::too_large(HTTP_BODY_BYTES_MAX)
            }
            _ => Problem::bad("the body did not come whole"),
        }),
    }
}

fn parse_body(bytes: &[u8], resource: &Resource) -> Result<Map<String, Value>, Problem> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        _ if matches!(resource, Resource::Definitions(_)) => Err(Problem::bad("failed_to_parse_json")),
        _ => Err(Problem::bad("not_json")),
    }
}

/// The one table of what is done for which request.
async fn dispatch(
    asked: Asked<'_>,
    resource: &Resource,
    method: &Method,
    state: &State,
) -> Result<Answer, Problem> {
    use Resource as R;
    let puts = *method == Method::PUT;
    let deletes = *method == Method::DELETE;
    let posts = *method == Method::POST;
    match resource {
        R::Overview => overview::overview(asked, state).await,
        R::ClusterName => Ok(Answer::Value(json!({"name": overview::CLUSTER_NAME}))),
        R::Nodes => overview::nodes(asked, state).await,
        R::Node(name) => overview::node(asked, name, state),
        R::Extensions | R::FeatureFlags | R::DeprecatedFeatures => Ok(Answer::Value(json!([]))),
        R::Whoami => Ok(users::whoami(asked)),
        R::HashPassword(password) => Ok(users::hash(asked, password)),
        R::Aliveness(vhost) => health::aliveness(asked, vhost),
        R::Health(check) => health::check(asked, check, state),
        R::Definitions(vhost) if posts => definitions::post(asked, vhost.as_deref()).await,
        R::Definitions(vhost) => definitions::get(asked, vhost.as_deref()),
        R::Parameters(component, vhost) => {
            parameters::list(asked, component.as_deref(), vhost.as_deref()).await
        }
        R::Parameter(component, vhost, name) if puts => parameters::put(asked, component, vhost, name).await,
        R::Parameter(component, vhost, name) if deletes => {
            parameters::delete(asked, component, vhost, name).await
        }
        R::Parameter(component, vhost, name) => parameters::get(asked, component, vhost, name),
        R::GlobalParameters => parameters::list_global(asked).await,
        R::GlobalParameter(name) if puts => parameters::put_global(asked, name).await,
        R::GlobalParameter(name) if deletes => parameters::delete_global(asked, name).await,
        R::GlobalParameter(name) => parameters::get_global(asked, name),
        R::VhostLimits(vhost) => limits::list_of_vhosts(asked, vhost.as_deref()).await,
        R::VhostLimit(vhost, name) if puts => limits::put(asked, Whose::Vhost(vhost), name).await,
        R::VhostLimit(vhost, name) => limits::delete(asked, Whose::Vhost(vhost), name).await,
        R::UserLimits(user) => limits::list_of_users(asked, user.as_deref()).await,
        R::UserLimit(user, name) if puts => limits::put(asked, Whose::User(user), name).await,
        R::UserLimit(user, name) => limits::delete(asked, Whose::User(user), name).await,
        R::Policies { operator, vhost } => policies::list(asked, *operator, vhost.as_deref()).await,
        R::Policy { operator, vhost, name } if puts => policies::put(asked, *operator, vhost, name).await,
        R::Policy { operator, vhost, name } if deletes => {
            policies::delete(asked, *operator, vhost, name).await
        }
        R::Policy { operator, vhost, name } => policies::get(asked, *operator, vhost, name),
        R::Connections(vhost) => connections::list(asked, vhost.as_deref(), None).await,
        R::ConnectionsOf(user) if deletes => connections::delete_of(asked, user).await,
        R::ConnectionsOf(user) => connections::list(asked, None, Some(user)).await,
        R::Connection(name) if deletes => connections::delete(asked, name).await,
        R::Connection(name) => connections::get(asked, name).await,
        R::ConnectionChannels(name) => connections::channels_of(asked, name).await,
        R::Channels(vhost) => connections::channels(asked, vhost.as_deref()).await,
        R::Channel(name) => connections::channel(asked, name).await,
        R::Consumers(vhost) => connections::consumers(asked, vhost.as_deref()).await,
        R::Exchanges(vhost) => exchanges::list(asked, vhost.as_deref()).await,
        R::Exchange(vhost, name) if puts => exchanges::put(asked, vhost, name).await,
        R::Exchange(vhost, name) if deletes => exchanges::delete(asked, vhost, name).await,
        R::Exchange(vhost, name) => exchanges::get(asked, vhost, name).await,
        R::Publish(vhost, exchange) => messages::publish(asked, vhost, exchange).await,
        R::ExchangeBindings { vhost, exchange, source } => {
            bindings::of_exchange(asked, vhost, exchange, *source).await
        }
        R::Queues(vhost) => queues::list(asked, vhost.as_deref()).await,
        R::Queue(vhost, name) if puts => queues::put(asked, vhost, name).await,
        R::Queue(vhost, name) if deletes => queues::delete(asked, vhost, name).await,
        R::Queue(vhost, name) => queues::get(asked, vhost, name).await,
        R::QueueBindings(vhost, name) => bindings::of_queue(asked, vhost, name).await,
        R::QueueContents(vhost, name) => queues::purge(asked, vhost, name).await,
        R::QueueGet(vhost, name) => messages::get(asked, vhost, name).await,
        R::Bindings(vhost) => bindings::list(asked, vhost.as_deref()).await,
        R::BindingsBetween(ends) if posts => bindings::post(asked, ends).await,
        R::BindingsBetween(ends) => bindings::between(asked, ends).await,
        R::Binding(ends, properties) if deletes => bindings::delete(asked, ends, properties).await,
        R::Binding(ends, properties) => bindings::get(asked, ends, properties),
        R::Vhosts => vhosts::list(asked).await,
        R::Vhost(name) if puts => vhosts::put(asked, name).await,
        R::Vhost(name) if deletes => vhosts::delete(asked, name).await,
        R::Vhost(name) => vhosts::get(asked, name).await,
        R::VhostPermissions(name) => users::permissions(asked, Some(name), None).await,
        R::VhostTopicPermissions(name) => users::topic_permissions(asked, Some(name), None).await,
        R::Users => users::list(asked, false).await,
        R::UsersWithoutPermissions => users::list(asked, true).await,
        R::UsersBulkDelete => users::bulk_delete(asked).await,
        R::User(name) if puts => users::put(asked, name).await,
        R::User(name) if deletes => users::delete(asked, name).await,
        R::User(name) => users::get(asked, name),
        R::UserPermissions(name) => users::permissions(asked, None, Some(name)).await,
        R::UserTopicPermissions(name) => users::topic_permissions(asked, None, Some(name)).await,
        R::Permissions => users::permissions(asked, None, None).await,
        R::Permission(vhost, user) if puts => users::put_permission(asked, vhost, user).await,
        R::Permission(vhost, user) if deletes => users::delete_permission(asked, vhost, user).await,
        R::Permission(vhost, user) => users::permission(asked, vhost, user),
        R::TopicPermissions => users::topic_permissions(asked, None, None).await,
        R::TopicPermissionsOf(vhost, user) if puts => users::put_topic_permission(asked, vhost, user).await,
        R::TopicPermissionsOf(vhost, user) if deletes => {
            users::delete_topic_permissions(asked, vhost, user, None).await
        }
        R::TopicPermissionsOf(vhost, user) => users::topic_permissions(asked, Some(vhost), Some(user)).await,
        R::TopicPermission(vhost, user, exchange) if deletes => {
            users::delete_topic_permissions(asked, vhost, user, Some(exchange)).await
        }
        R::TopicPermission(vhost, user, exchange) => users::topic_permission(asked, vhost, user, exchange),
    }
}
