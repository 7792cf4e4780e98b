use super::*;

/// What Kubernetes 1.37 answers, shortened.
const CORE: &str = r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[
    {"metadata":{"creationTimestamp":null},"versions":[{"version":"v1","freshness":"Current","resources":[
        {"resource":"secrets","scope":"Namespaced","verbs":["get","patch"]},
        {"resource":"services","scope":"Namespaced","verbs":["patch"],
         "subresources":[{"subresource":"status","verbs":["patch"]}]},
        {"resource":"endpoints","scope":"Namespaced","verbs":["patch"]},
        {"resource":"nodes","scope":"Cluster","verbs":["patch"]},
        {"resource":"namespaces","scope":"Cluster","verbs":["patch"]},
        {"resource":"events","scope":"Namespaced","verbs":["patch"]},
        {"resource":"bindings","scope":"Namespaced","verbs":["create"]}]}]}]}"#;

const GROUPS: &str = r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","items":[
    {"metadata":{"name":"events.k8s.io"},"versions":[{"version":"v1","resources":[
        {"resource":"events","scope":"Namespaced","verbs":["patch"]}]}]},
    {"metadata":{"name":"networking.k8s.io"},"versions":[{"version":"v1","resources":[
        {"resource":"ingresses","scope":"Namespaced","verbs":["patch"]}]}]},
    {"metadata":{"name":"rbac.authorization.k8s.io"},"versions":[{"version":"v1","resources":[
        {"resource":"clusterroles","scope":"Cluster","verbs":["patch"]}]}]},
    {"metadata":{"name":"example.com"},"versions":[
        {"version":"v2","resources":[
            {"resource":"widgets","scope":"Namespaced","verbs":["patch"]},
            {"resource":"readings","scope":"Cluster","verbs":["get"]},
            {"resource":"secrets","scope":"Cluster","verbs":["patch"]}]},
        {"version":"v1","resources":[
            {"resource":"widgets","scope":"Namespaced","verbs":["patch"]},
            {"resource":"readings","scope":"Cluster","verbs":["patch"]},
            {"resource":"frozen","scope":"Cluster","verbs":["get"]}]}]},
    {"metadata":{"name":"gone.example.com"},"versions":[{"version":"v1","freshness":"Stale"}]},
    {"metadata":{"name":"future.k8s.io"},"versions":[{"version":"v1","resources":[
        {"resource":"wonders","scope":"Cluster","verbs":["patch"]},
        {"resource":"twins","scope":"Cluster","verbs":["patch"]}]}]},
    {"metadata":{"name":"later.k8s.io"},"versions":[{"version":"v1","resources":[
        {"resource":"twins","scope":"Cluster","verbs":["patch"]}]}]}]}"#;

fn apis() -> Apis {
    let mut apis = Apis::default();
    for page in [CORE, GROUPS] {
        let Page::Aggregated(groups) = read("/apis", page.as_bytes()).unwrap() else {
            panic!("not aggregated");
        };
        apis.add_groups(&groups);
    }
    apis
}

fn path(key: &str) -> Result<String, NoPath> {
    apis().path(&Name::parse(key.as_bytes(), "/registry").unwrap())
}

#[test]
fn every_key_has_its_path() {
    for (key, wanted) in [
        (
            "/registry/secrets/prod/db",
            "/api/v1/namespaces/prod/secrets/db",
        ),
        (
            "/registry/services/specs/prod/web",
            "/api/v1/namespaces/prod/services/web",
        ),
        (
            "/registry/services/endpoints/prod/web",
            "/api/v1/namespaces/prod/endpoints/web",
        ),
        ("/registry/minions/node-1", "/api/v1/nodes/node-1"),
        ("/registry/namespaces/prod", "/api/v1/namespaces/prod"),
        (
            "/registry/events/prod/web.17",
            "/api/v1/namespaces/prod/events/web.17",
        ),
        (
            "/registry/ingress/prod/web",
            "/apis/networking.k8s.io/v1/namespaces/prod/ingresses/web",
        ),
        (
            "/registry/clusterroles/system:node",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
        ),
        (
            "/registry/example.com/widgets/prod/w",
            "/apis/example.com/v2/namespaces/prod/widgets/w",
        ),
        (
            "/registry/example.com/secrets/s",
            "/apis/example.com/v2/secrets/s",
        ),
        // The preferred version takes no patch, the other one does.
        (
            "/registry/example.com/readings/r",
            "/apis/example.com/v1/readings/r",
        ),
        // Of a Kubernetes that is newer than we are.
        ("/registry/wonders/w", "/apis/future.k8s.io/v1/wonders/w"),
        (
            "/registry/secrets/prod/a b?c#d%2F..",
            "/api/v1/namespaces/prod/secrets/a%20b%3Fc%23d%252F..",
        ),
    ] {
        assert_eq!(path(key), Ok(wanted.to_owned()), "{key}");
    }
}

#[test]
fn what_has_no_path_says_why() {
    let resource = |name: &str, group: Option<&str>| Resource {
        name: name.to_owned(),
        group: group.map(str::to_owned),
    };
    for (key, wanted) in [
        ("/registry/masterleases/10.0.0.1", NoPath::Internal),
        ("/registry/ranges/serviceips", NoPath::Internal),
        ("/registry/secrets/db", NoPath::Strange),
        ("/registry/secrets/prod/a/b", NoPath::Strange),
        ("/registry/namespaces/prod/x", NoPath::Strange),
        ("/registry/secrets", NoPath::Strange),
        ("/registry/secrets/prod/", NoPath::Strange),
        (
            "/registry/podsecuritypolicies/p",
            NoPath::Gone(resource("podsecuritypolicies", None)),
        ),
        (
            "/registry/old.example.com/things/p",
            NoPath::Gone(resource("things", Some("old.example.com"))),
        ),
        (
            "/registry/gone.example.com/things/p",
            NoPath::Silent(resource("things", Some("gone.example.com"))),
        ),
        (
            "/registry/twins/t",
            NoPath::Ambiguous(resource("twins", None)),
        ),
        (
            "/registry/example.com/frozen/f",
            NoPath::NoPatch(resource("frozen", Some("example.com"))),
        ),
    ] {
        assert_eq!(path(key), Err(wanted), "{key}");
    }
}

#[test]
fn an_older_server_lists_its_versions() {
    let versions = |page: &str| match read("/apis", page.as_bytes()).unwrap() {
        Page::Listed(versions) => versions,
        Page::Aggregated(_) => panic!("it is not aggregated"),
    };
    let version = |group: &str, version: &str| Version {
        group: group.to_owned(),
        version: version.to_owned(),
    };
    let core = r#"{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[]}"#;
    assert_eq!(versions(core), [version("", "v1")]);
    let groups = r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[{"name":"example.com",
        "versions":[{"groupVersion":"example.com/v1","version":"v1"},{"groupVersion":"example.com/v2","version":"v2"}],
        "preferredVersion":{"groupVersion":"example.com/v2","version":"v2"}}]}"#;
    assert_eq!(
        versions(groups),
        [version("example.com", "v2"), version("example.com", "v1")]
    );
}

#[test]
fn what_is_no_discovery_is_refused() {
    for page in [
        "",
        "<html>",
        r#"{"kind":"Status"}"#,
        r#"{"kind":"APIGroupDiscoveryList","items":3}"#,
    ] {
        let error = read("/apis", page.as_bytes()).unwrap_err().to_string();
        assert!(
            error.starts_with("/apis is no page of discovery"),
            "{error}"
        );
    }
}
