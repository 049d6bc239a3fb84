import pytest
from yarl import URL

from kitd.registry.proxy import InvalidProxyError, proxy_for

REGISTRY = "https://registry.example.com/v2/"
PROXY = "http://proxy.example.com:3128"


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        (REGISTRY, {}, None),
        (REGISTRY, {"HTTPS_PROXY": PROXY}, PROXY),
        (REGISTRY, {"https_proxy": PROXY}, PROXY),
        (REGISTRY, {"HTTPS_PROXY": "", "https_proxy": PROXY}, PROXY),
        (REGISTRY, {"HTTPS_PROXY": PROXY, "https_proxy": "http://other:1"}, PROXY),
        (REGISTRY, {"HTTPS_PROXY": " proxy.example.com:3128 "}, PROXY),
        (REGISTRY, {"HTTPS_PROXY": "https://proxy.example.com"}, "https://proxy.example.com"),
        (REGISTRY, {"HTTP_PROXY": PROXY}, None),
        ("http://registry.example.com/v2/", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://registry.example.com/v2/", {"HTTPS_PROXY": PROXY}, None),
        ("https://localhost:5000/", {"HTTPS_PROXY": PROXY}, None),
        ("https://127.0.0.2:5000/", {"HTTPS_PROXY": PROXY}, None),
        ("https://[::1]:5000/", {"HTTPS_PROXY": PROXY}, None),
    ],
)
def test_the_proxy_is_that_of_the_environment(url, environment, proxy):
    assert proxy_for(URL(url), environment) == (None if proxy is None else URL(proxy))


@pytest.mark.parametrize(
    ("host", "no_proxy", "excluded"),
    [
        ("registry.example.com", "", False),
        ("registry.example.com", ",", False),
        ("registry.example.com", "*", True),
        ("registry.example.com", "registry.example.com", True),
        ("registry.example.com", "other.org, Registry.Example.COM ,x", True),
        ("registry.example.com", "example.com", True),
        ("registry.example.com", ".example.com", True),
        ("registry.example.com", "*.example.com", True),
        ("example.com", ".example.com", False),
        ("example.com", "*.example.com", False),
        ("badexample.com", "example.com", False),
        ("registry.example.com", "registry", False),
        ("registry.example.com:5000", "example.com:5000", True),
        ("registry.example.com:5000", "example.com:5001", False),
        ("registry.example.com", "example.com:443", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:5000", "10.1.2.3:5000", True),
        ("10.1.2.3:5000", "10.1.2.3:443", False),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "2.3", False),
        ("10.1.2.3", "example.com", False),
        ("[2001:db8::1]:5000", "2001:db8::/32", True),
        ("[2001:db8::1]:5000", "[2001:db8::1]:5000", True),
        ("[2001:db8::1]:5000", "[2001:db8::1]:80", False),
        ("[2001:db8::1]", "10.0.0.0/8,2001:db8::1", True),
    ],
)
def test_no_proxy_names_hosts_networks_and_ports(host, no_proxy, excluded):
    environment = {"HTTPS_PROXY": PROXY, "no_proxy": no_proxy}
    assert (proxy_for(URL(f"https://{host}/v2/"), environment) is None) is excluded


@pytest.mark.parametrize(
    "proxy", ["socks5://ada:hunter2@proxy:1080", "http://", "http://ada:hunter2@:x", "ftp://proxy"]
)
def test_what_is_no_http_proxy_is_refused_and_not_repeated(proxy):
    with pytest.raises(InvalidProxyError) as caught:
        proxy_for(URL(REGISTRY), {"HTTPS_PROXY": proxy})
    assert str(caught.value) == "HTTPS_PROXY names no HTTP proxy"
