use data_encoding::BASE64;

use super::*;

#[test]
fn a_server_is_a_url_without_secrets() {
    for (server, shown) in [
        ("https://kube.test", "https://kube.test"),
        ("https://kube.test:6443/", "https://kube.test:6443"),
        (
            "https://[::1]:6443/k8s/clusters/c-1/",
            "https://[::1]:6443/k8s/clusters/c-1",
        ),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ] {
        let found = cluster(&json!({"server": server, "insecure-skip-tls-verify": true}));
        assert_eq!(found.ok().unwrap().server, shown);
    }
    for wrong in [
        "",
        "kube.test:6443",
        "https://",
        "ftp://kube.test",
        "https://secret:secret@kube.test",
        "https://kube.test/?a=secret",
        "https://kube test",
    ] {
        refused(
            cluster(&json!({"server": wrong})),
            "must be https://HOST:PORT",
        );
    }
}

#[test]
fn a_cluster_is_recognised_or_it_is_said_that_it_is_not() {
    let https = |more: &Value| {
        let mut all = json!({"server": "https://kube.test"});
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        cluster(&all)
    };
    let data = BASE64.encode(authority().as_bytes());
    let named = https(&json!({"certificate-authority-data": data, "tls-server-name": "10.0.0.1"}));
    let (_, name) = named.ok().unwrap().trust.unwrap();
    assert_eq!(name.to_str(), "10.0.0.1");
    for (more, why) in [
        (
            json!({"certificate-authority": "gone.crt"}),
            "/etc/kube/gone.crt: No such file",
        ),
        (
            json!({"certificate-authority-data": BASE64.encode(b"x")}),
            "has no certificate",
        ),
        (
            json!({"certificate-authority-data": data, "insecure-skip-tls-verify": true}),
            "take out",
        ),
        (
            json!({"tls-server-name": "not a name"}),
            "neither a name nor an address",
        ),
        (
            json!({"proxy-url": "http://secret@proxy.test"}),
            "knows no proxies",
        ),
        (
            json!({"insecure-skip-tls-verify": "secret"}),
            "must be true or false",
        ),
    ] {
        refused(https(&more), why);
    }
}
