use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use millstream::kafka::APIS;

use crate::node::Node;
use crate::wire::{ask, decode, frame, served, text};

fn request() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(text("client"))
        .with_client_software_version(text("1.0"))
}

fn advertised(response: &ApiVersionsResponse) -> Vec<(i16, i16, i16)> {
    response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect()
}

fn table() -> Vec<(i16, i16, i16)> {
    APIS.iter().map(|api| (api.key, *api.versions.start(), *api.versions.end())).collect()
}

#[test]
fn every_version_lists_the_table() {
    for version in served(ApiKey::ApiVersions) {
        let mut node = Node::new();
        let conn = node.connect();
        let response = ask(&mut node, conn, version, &request());
        assert_eq!((response.error_code, advertised(&response)), (0, table()), "version {version}");
    }
}

#[test]
fn a_version_that_is_too_new_is_answered_in_the_oldest_form() {
    let mut node = Node::new();
    let conn = node.connect();
    let mut bytes = frame(4, 9, &request());
    bytes[7] = 5;
    node.receive(conn, &bytes);
    let (correlation_id, response) = decode::<ApiVersionsResponse>(0, node.response(conn).unwrap());
    assert_eq!((correlation_id, response.error_code, advertised(&response)), (9, 35, table()));
    assert_eq!(ask(&mut node, conn, 3, &request()).error_code, 0, "the connection goes on");
}

#[test]
fn a_client_whose_name_cannot_be_is_refused() {
    let mut node = Node::new();
    let conn = node.connect();
    let response = ask(&mut node, conn, 3, &request().with_client_software_name(text("no spaces")));
    assert_eq!(response.error_code, 42);
    let response = ask(&mut node, conn, 3, &request().with_client_software_version(text("")));
    assert_eq!(response.error_code, 42);
}

#[test]
fn produce_from_version_0_is_advertised_for_old_clients_to_compress() {
    assert_eq!(table()[0], (0, 0, 9));
}
