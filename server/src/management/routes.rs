//! Every path under `/api`, the methods that it has, and who may use it.

use axum::http::Method;

use super::query::unquote;
use super::session::Role;

/// A part of a path, as it is meant.
pub type Name = Vec<u8>;

/// What a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resource {
    /// `overview`
    Overview,
    /// `cluster-name`
    ClusterName,
    /// `nodes`
    Nodes,
    /// `nodes/NAME`
    Node(Name),
    /// `extensions`
    Extensions,
    /// `feature-flags`
    FeatureFlags,
    /// `deprecated-features`
    DeprecatedFeatures,
    /// `whoami`
    Whoami,
    /// `auth/hash_password/PASSWORD`
    HashPassword(Name),
    /// `aliveness-test/VHOST`
    Aliveness(Name),
    /// `healthchecks/node`, `health/checks/...`
    Health(Vec<Name>),
    /// `definitions`, `definitions/VHOST`
    Definitions(Option<Name>),
    /// `parameters`, `parameters/COMPONENT`, `parameters/COMPONENT/VHOST`
    Parameters(Option<Name>, Option<Name>),
    /// `parameters/COMPONENT/VHOST/NAME`
    Parameter(Name, Name, Name),
    /// `global-parameters`
    GlobalParameters,
    /// `global-parameters/NAME`
    GlobalParameter(Name),
    /// `policies`, `operator-policies`, of one vhost or all
    Policies {
        /// Those that only tighten.
        operator: bool,
        /// Where.
        vhost: Option<Name>,
    },
    /// `policies/VHOST/NAME`, `operator-policies/VHOST/NAME`
    Policy {
        /// One that only tightens.
        operator: bool,
        /// Where.
        vhost: Name,
        /// Which.
        name: Name,
    },
    /// `vhost-limits`, of one vhost or all
    VhostLimits(Option<Name>),
    /// `vhost-limits/VHOST/NAME`
    VhostLimit(Name, Name),
    /// `user-limits`, of one user or all
    UserLimits(Option<Name>),
    /// `user-limits/USER/NAME`
    UserLimit(Name, Name),
    /// `connections`, of one vhost or all
    Connections(Option<Name>),
    /// `connections/username/USER`
    ConnectionsOf(Name),
    /// `connections/NAME`
    Connection(Name),
    /// `connections/NAME/channels`
    ConnectionChannels(Name),
    /// `channels`, of one vhost or all
    Channels(Option<Name>),
    /// `channels/NAME`
    Channel(Name),
    /// `consumers`, of one vhost or all
    Consumers(Option<Name>),
    /// `exchanges`, of one vhost or all
    Exchanges(Option<Name>),
    /// `exchanges/VHOST/NAME`
    Exchange(Name, Name),
    /// `exchanges/VHOST/NAME/publish`
    Publish(Name, Name),
    /// `exchanges/VHOST/NAME/bindings/source`, or `destination`
    ExchangeBindings {
        /// Where.
        vhost: Name,
        /// Which.
        exchange: Name,
        /// Those that start from it, else those that lead to it.
        source: bool,
    },
    /// `queues`, of one vhost or all
    Queues(Option<Name>),
    /// `queues/VHOST/NAME`
    Queue(Name, Name),
    /// `queues/VHOST/NAME/bindings`
    QueueBindings(Name, Name),
    /// `queues/VHOST/NAME/contents`
    QueueContents(Name, Name),
    /// `queues/VHOST/NAME/get`
    QueueGet(Name, Name),
    /// `bindings`, of one vhost or all
    Bindings(Option<Name>),
    /// `bindings/VHOST/e/SOURCE/q/DESTINATION`, or `e`
    BindingsBetween(Ends),
    /// The same, and which of them
    Binding(Ends, Name),
    /// `vhosts`
    Vhosts,
    /// `vhosts/NAME`
    Vhost(Name),
    /// `vhosts/NAME/permissions`
    VhostPermissions(Name),
    /// `vhosts/NAME/topic-permissions`
    VhostTopicPermissions(Name),
    /// `users`
    Users,
    /// `users/without-permissions`
    UsersWithoutPermissions,
    /// `users/bulk-delete`
    UsersBulkDelete,
    /// `users/NAME`
    User(Name),
    /// `users/NAME/permissions`
    UserPermissions(Name),
    /// `users/NAME/topic-permissions`
    UserTopicPermissions(Name),
    /// `permissions`
    Permissions,
    /// `permissions/VHOST/USER`
    Permission(Name, Name),
    /// `topic-permissions`
    TopicPermissions,
    /// `topic-permissions/VHOST/USER`
    TopicPermissionsOf(Name, Name),
    /// `topic-permissions/VHOST/USER/EXCHANGE`
    TopicPermission(Name, Name, Name),
}

/// The ends of bindings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ends {
    /// Where.
    pub vhost: Name,
    /// The exchange that they start from.
    pub source: Name,
    /// Whether they lead to an exchange, else to a queue.
    pub to_exchange: bool,
    /// What they lead to.
    pub destination: Name,
}

/// The name under which the default exchange is known here.
pub const DEFAULT_EXCHANGE: &[u8] = b"amq.default";

/// An exchange's name, as it is in a path.
fn exchange(name: &[u8]) -> Name {
    if name == DEFAULT_EXCHANGE { Vec::new() } else { name.to_vec() }
}

impl Resource {
    /// What a path below `/api` names.
    pub fn of(path: &str) -> Option<Resource> {
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        let parts: Vec<Name> = trimmed.split('/').map(|part| unquote(part.as_bytes(), false)).collect();
        let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
        let own = |name: &[u8]| name.to_vec();
        Some(match parts[..] {
            [b"overview"] => Resource::Overview,
            [b"cluster-name"] => Resource::ClusterName,
            [b"nodes"] => Resource::Nodes,
            [b"nodes", name] => Resource::Node(own(name)),
            [b"extensions"] => Resource::Extensions,
            [b"feature-flags"] => Resource::FeatureFlags,
            [b"deprecated-features"] | [b"deprecated-features", b"used"] => Resource::DeprecatedFeatures,
            [b"whoami"] => Resource::Whoami,
            [b"auth", b"hash_password", password] => Resource::HashPassword(own(password)),
            [b"aliveness-test", vhost] => Resource::Aliveness(own(vhost)),
            [b"healthchecks", b"node"] | [b"healthchecks", b"node", _] => Resource::Health(Vec::new()),
            [b"health", b"checks", ref rest @ ..] if !rest.is_empty() => {
                Resource::Health(rest.iter().map(|part| own(part)).collect())
            }
            [b"definitions"] => Resource::Definitions(None),
            [b"definitions", vhost] => Resource::Definitions(Some(own(vhost))),
            [b"parameters"] => Resource::Parameters(None, None),
            [b"parameters", component] => Resource::Parameters(Some(own(component)), None),
            [b"parameters", component, vhost] => Resource::Parameters(Some(own(component)), Some(own(vhost))),
            [b"parameters", component, vhost, name] => {
                Resource::Parameter(own(component), own(vhost), own(name))
            }
            [b"global-parameters"] => Resource::GlobalParameters,
            [b"global-parameters", name] => Resource::GlobalParameter(own(name)),
            [sort @ (b"policies" | b"operator-policies"), ref rest @ ..] => {
                let operator = sort == b"operator-policies";
                match *rest {
                    [] => Resource::Policies { operator, vhost: None },
                    [vhost] => Resource::Policies { operator, vhost: Some(own(vhost)) },
                    [vhost, name] => Resource::Policy { operator, vhost: own(vhost), name: own(name) },
                    _ => return None,
                }
            }
            [b"vhost-limits"] => Resource::VhostLimits(None),
            [b"vhost-limits", vhost] => Resource::VhostLimits(Some(own(vhost))),
            [b"vhost-limits", vhost, name] => Resource::VhostLimit(own(vhost), own(name)),
            [b"user-limits"] => Resource::UserLimits(None),
            [b"user-limits", user] => Resource::UserLimits(Some(own(user))),
            [b"user-limits", user, name] => Resource::UserLimit(own(user), own(name)),
            [b"connections"] => Resource::Connections(None),
            [b"connections", b"username", user] => Resource::ConnectionsOf(own(user)),
            [b"connections", name] => Resource::Connection(own(name)),
            [b"connections", name, b"channels"] => Resource::ConnectionChannels(own(name)),
            [b"channels"] => Resource::Channels(None),
            [b"channels", name] => Resource::Channel(own(name)),
            [b"consumers"] => Resource::Consumers(None),
            [b"consumers", vhost] => Resource::Consumers(Some(own(vhost))),
            [b"exchanges"] => Resource::Exchanges(None),
            [b"exchanges", vhost] => Resource::Exchanges(Some(own(vhost))),
            [b"exchanges", vhost, name] => Resource::Exchange(own(vhost), exchange(name)),
            [b"exchanges", vhost, name, b"publish"] => Resource::Publish(own(vhost), exchange(name)),
            [b"exchanges", vhost, name, b"bindings", end @ (b"source" | b"destination")] => {
                let source = end == b"source";
                Resource::ExchangeBindings { vhost: own(vhost), exchange: exchange(name), source }
            }
            [b"queues"] | [b"queues", b"detailed"] => Resource::Queues(None),
            [b"queues", vhost] => Resource::Queues(Some(own(vhost))),
            [b"queues", vhost, name] => Resource::Queue(own(vhost), own(name)),
            [b"queues", vhost, name, b"bindings"] => Resource::QueueBindings(own(vhost), own(name)),
            [b"queues", vhost, name, b"contents"] => Resource::QueueContents(own(vhost), own(name)),
            [b"queues", vhost, name, b"get"] => Resource::QueueGet(own(vhost), own(name)),
            [b"bindings"] => Resource::Bindings(None),
            [b"bindings", vhost] => Resource::Bindings(Some(own(vhost))),
            [b"bindings", vhost, b"e", source, sort @ (b"q" | b"e"), destination, ref rest @ ..] => {
                let ends = Ends {
                    vhost: own(vhost),
                    source: exchange(source),
                    to_exchange: sort == b"e",
                    destination: own(destination),
                };
                match *rest {
                    [] => Resource::BindingsBetween(ends),
                    [properties] => Resource::Binding(ends, own(properties)),
                    _ => return None,
                }
            }
            [b"vhosts"] => Resource::Vhosts,
            [b"vhosts", name] => Resource::Vhost(own(name)),
            [b"vhosts", name, b"permissions"] => Resource::VhostPermissions(own(name)),
            [b"vhosts", name, b"topic-permissions"] => Resource::VhostTopicPermissions(own(name)),
            [b"vhosts", name, b"connections"] => Resource::Connections(Some(own(name))),
            [b"vhosts", name, b"channels"] => Resource::Channels(Some(own(name))),
            [b"users"] => Resource::Users,
            [b"users", b"without-permissions"] => Resource::UsersWithoutPermissions,
            [b"users", b"bulk-delete"] => Resource::UsersBulkDelete,
            [b"users", name] => Resource::User(own(name)),
            [b"users", name, b"permissions"] => Resource::UserPermissions(own(name)),
            [b"users", name, b"topic-permissions"] => Resource::UserTopicPermissions(own(name)),
            [b"permissions"] => Resource::Permissions,
            [b"permissions", vhost, user] => Resource::Permission(own(vhost), own(user)),
            [b"topic-permissions"] => Resource::TopicPermissions,
            [b"topic-permissions", vhost, user] => Resource::TopicPermissionsOf(own(vhost), own(user)),
            [b"topic-permissions", vhost, user, exchange] => {
                Resource::TopicPermission(own(vhost), own(user), own(exchange))
            }
            _ => return None,
        })
    }

    /// The methods beside HEAD and OPTIONS that it has.
    pub fn methods(&self) -> &'static [Method] {
        use Resource as R;
        const READ: &[Method] = &[Method::GET];
        const OBJECT: &[Method] = &[Method::GET, Method::PUT, Method::DELETE];
        match self {
            R::Parameter(..)
            | R::GlobalParameter(_)
            | R::Policy { .. }
            | R::Exchange(..)
            | R::Queue(..)
            | R::Vhost(_)
            | R::User(_)
            | R::Permission(..)
            | R::TopicPermissionsOf(..) => OBJECT,
            R::VhostLimit(..) | R::UserLimit(..) => &[Method::PUT, Method::DELETE],
            R::Definitions(_) | R::BindingsBetween(_) => &[Method::GET, Method::POST],
            R::Binding(..) | R::Connection(_) | R::ConnectionsOf(_) | R::TopicPermission(..) => {
                &[Method::GET, Method::DELETE]
            }
            R::Publish(..) | R::QueueGet(..) | R::UsersBulkDelete => &[Method::POST],
            R::QueueContents(..) => &[Method::DELETE],
            _ => READ,
        }
    }

    /// Who may use it by that method, whatever else is looked at then.
    pub fn role(&self, method: &Method) -> Role {
        use Resource as R;
        let reads = *method == Method::GET;
        match self {
            R::Vhost(_) | R::Policies { .. } | R::Policy { .. } | R::Parameters(..) | R::Parameter(..)
                if reads =>
            {
                Role::Management
            }
            R::Definitions(None)
            | R::Vhost(_)
            | R::VhostPermissions(_)
            | R::VhostTopicPermissions(_)
            | R::VhostLimit(..)
            | R::UserLimit(..)
            | R::Users
            | R::UsersWithoutPermissions
            | R::UsersBulkDelete
            | R::User(_)
            | R::UserPermissions(_)
            | R::UserTopicPermissions(_)
            | R::Permissions
            | R::Permission(..)
            | R::TopicPermissions
            | R::TopicPermissionsOf(..)
            | R::TopicPermission(..)
            | R::Policy { operator: true, .. } => Role::Administrator,
            R::GlobalParameters | R::GlobalParameter(_) if !reads => Role::Administrator,
            R::Policies { .. }
            | R::Policy { .. }
            | R::Parameters(..)
            | R::Parameter(..)
            | R::Definitions(Some(_))
            | R::GlobalParameters
            | R::GlobalParameter(_) => Role::PolicyMaker,
            R::Nodes | R::Node(_) => Role::Monitoring,
            _ => Role::Management,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths_may_have_any_bytes() {
        let queue = Resource::of("queues/%2F/a%2Fb%25").unwrap();
        assert_eq!(queue, Resource::Queue(b"/".to_vec(), b"a/b%".to_vec()));
        assert_eq!(Resource::of("queues/"), Some(Resource::Queues(None)));
        assert_eq!(
            Resource::of("exchanges/v/amq.default"),
            Some(Resource::Exchange(b"v".to_vec(), Vec::new()))
        );
        for nothing in ["", "nope", "queues/a/b/c", "bindings/v/x/a/q/b", "policies/a/b/c"] {
            assert_eq!(Resource::of(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn who_changes_needs_more_than_who_looks() {
        let role = |path, method| Resource::of(path).unwrap().role(&method);
        assert_eq!(role("policies/v/p", Method::GET), Role::Management);
        assert_eq!(role("policies/v/p", Method::PUT), Role::PolicyMaker);
        assert_eq!(role("operator-policies/v/p", Method::PUT), Role::Administrator);
        assert_eq!(role("vhosts/v", Method::GET), Role::Management);
        assert_eq!(role("vhosts/v", Method::DELETE), Role::Administrator);
        assert_eq!(role("users/u", Method::GET), Role::Administrator);
        assert_eq!(role("nodes", Method::GET), Role::Monitoring);
        assert_eq!(role("queues/v/q", Method::DELETE), Role::Management);
    }
}
