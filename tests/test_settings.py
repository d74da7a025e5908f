"""Settings: where values come from, which source wins, and what is said of a wrong one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from scraper.errors import SettingsError, UsageError
from scraper.layers import (
    SCRAPY_NAMES,
    Layer,
    environment_layer,
    file_layer,
    find_file,
    mapping_layer,
    merge,
    option_layer,
)
from scraper.settings import SECTIONS, Host, PartSettings, Settings, Size, describe


def value_of(settings: Settings, name: str) -> Any:
    """Read one setting by its dotted name."""
    section, _, key = name.partition(".")
    return getattr(getattr(settings, section), key)


def layers_of(tmp_path: Path, names: set[str]) -> list[Layer]:
    """Make the named sources in the order of their rank, each with a delay of its own."""
    file = tmp_path / "settings.toml"
    file.write_text("[politeness]\ndelay = 1\n")
    sources = {
        "file": file_layer(file),
        "environment": environment_layer({"SCRAPE_POLITENESS__DELAY": "2", "HOME": "/"}),
        "custom": mapping_layer({"politeness": {"delay": 3.0}}, "custom_settings"),
        "option": option_layer(["politeness.delay=4"]),
    }
    return [layer for name, layer in sources.items() if name in names]


@pytest.mark.parametrize(
    ("names", "delay"),
    [
        (set(), 0.0),
        ({"file"}, 1.0),
        ({"file", "environment"}, 2.0),
        ({"environment"}, 2.0),
        ({"file", "custom"}, 3.0),
        ({"file", "environment", "custom"}, 3.0),
        ({"file", "environment", "custom", "option"}, 4.0),
        ({"option"}, 4.0),
    ],
)
def test_precedence(tmp_path: Path, names: set[str], delay: float) -> None:
    """Defaults < settings.toml < environment < custom_settings < -s; the other keys keep their defaults."""
    settings = merge(layers_of(tmp_path, names))
    assert settings.politeness.delay == delay
    assert settings.politeness.concurrency_per_host == 8
    assert ("politeness.delay" in settings.origins) is bool(names)


def test_each_value_says_where_it_comes_from(tmp_path: Path) -> None:
    """``origins`` names the source of each value that is not the default, the last one that spoke."""
    layers = [*layers_of(tmp_path, {"file", "option"}), mapping_layer({"crawl.max_pages": 1}, "custom")]
    settings = merge(layers, tmp_path)
    assert settings.origins == {"politeness.delay": "-s", "crawl.max_pages": "custom"}
    assert settings.root == tmp_path


def test_the_documented_defaults() -> None:
    """The defaults that users rely on are those of the documentation."""
    defaults = merge([])
    assert defaults.crawl.concurrency == 64
    assert defaults.crawl.order == "breadth"
    assert (defaults.politeness.robots, defaults.politeness.adaptive) == (True, True)
    assert (defaults.politeness.concurrency_per_host, defaults.politeness.delay) == (8, 0.0)
    assert (defaults.download.timeout, defaults.download.max_body) == (60.0, 32 * 2**20)
    assert (defaults.download.retries, defaults.download.max_redirects) == (2, 20)
    assert (defaults.download.verify_tls, defaults.download.private_addresses) == (True, "seeds")


WRONG: list[tuple[dict[Any, Any], list[str]]] = [
    ({"crawl": {"concurency": 1}}, ["unknown setting crawl.concurency", "did you mean crawl.concurrency?"]),
    ({"crwl": {"concurrency": 1}}, ["unknown section [crwl]", "did you mean crawl?"]),
    ({"politeness": {"max_pages": 1}}, ["unknown setting politeness.max_pages"]),
    ({"xyzzy": {"a": 1}}, ["unknown section [xyzzy]", "scrape settings"]),
    ({"crawl": 5}, ["crawl is a section"]),
    ({"crawl": {"order": {"a": 1}}}, ["crawl.order", "'breadth', 'depth'"]),
    ({"crawl": {"concurrency": "5"}}, ["crawl.concurrency = '5'", "expected int, got str"]),
    ({"crawl": {"concurrency": True}}, ["crawl.concurrency = True", "expected int, got bool"]),
    ({"crawl": {"concurrency": 1.5}}, ["expected int, got float"]),
    ({"crawl": {"concurrency": 0}}, ["expected int >= 1"]),
    ({"crawl": {"max_pages": -1}}, ["expected int >= 0"]),
    ({"crawl": {"order": "BREADTH"}}, ["'breadth', 'depth'"]),
    ({"politeness": {"delay": "1"}}, ["expected float, got str"]),
    ({"politeness": {"delay": float("nan")}}, ["politeness.delay = nan"]),
    ({"politeness": {"delay": float("inf")}}, ["politeness.delay = inf"]),
    ({"politeness": {"robots": 1}}, ["expected bool, got int"]),
    ({"politeness": {"user_agent": "a\r\nX: y"}}, ["politeness.user_agent"]),
    ({"politeness": {"user_agent": "a\n"}}, ["politeness.user_agent"]),
    ({"frontier": {"use": "sqlite\n"}}, ["frontier.use"]),
    ({"download": {"max_body": "many"}}, ["32 MiB"]),
    ({"download": {"max_body": "-1"}}, ["32 MiB"]),
    ({"download": {"max_body": 0}}, ["32 MiB"]),
    ({"download": {"max_body": True}}, ["32 MiB"]),
    ({"download": {"max_body": 10**400}}, ["32 MiB"]),
    ({"download": {"max_body": "5 parsecs"}}, ["32 MiB"]),
    ({"download": {"private_addresses": "sometimes"}}, ["'seeds', 'always', 'never'"]),
    ({"log": {"level": None}}, ["'debug'"]),
    ({"DOWNLOAD_DELAYS": 1}, ["here: unknown setting DOWNLOAD_DELAYS; did you mean DOWNLOAD_DELAY?"]),
    ({"CONCURENT_REQUESTS": 1}, ["unknown setting CONCURENT_REQUESTS; did you mean CONCURRENT_REQUESTS?"]),
    ({"COOKIES_DEBUG": True}, ["Scrapy setting COOKIES_DEBUG has no counterpart"]),
    ({"DOWNLOAD_WARNSIZE": 1}, ["Scrapy setting DOWNLOAD_WARNSIZE has no counterpart"]),
    (
        {"ITEM_PIPELINES": {"a.B": 1}},
        ["here: ITEM_PIPELINES", "write each one as a [[pipelines]] table in settings.toml"],
    ),
    ({"DOWNLOADER_MIDDLEWARES": {"a.B": 1}}, ["here: DOWNLOADER_MIDDLEWARES", "middlewares.order"]),
    ({"max_pages": 3}, ["here: unknown section [max_pages]; did you mean crawl.max_pages?"]),
    ({"crawl.delay": 1.0}, ["here: unknown setting crawl.delay; did you mean politeness.delay?"]),
    ({"http": {"timeout": 5}}, ["here: unknown section [http]; did you mean download.timeout?"]),
    ({"FEEDS": {"x.json": {"format": "json"}}}, ["here: FEEDS is Scrapy's; here, write scrape run -o FILE"]),
    ({"RETRY_ENABLED": False}, ["here: RETRY_ENABLED is Scrapy's; here, write download.retries = 0"]),
    ({"JOBDIR": "x"}, ["here: JOBDIR", "scrape run --job DIR"]),
    ({"politeness.user_agent": ""}, ["user_agent = '': expected text, not empty and without control characters"]),
    ({1: 2}, ["is a string, not 1"]),
    ({"pipelines": "a:B"}, ["[[pipelines]]"]),
    ({"pipelines": [{"currency": "GBP"}]}, ["needs use"]),
    ({"pipelines": [{"use": "no_class"}]}, ["'no_class'"]),
]


@pytest.mark.parametrize(("values", "words"), WRONG)
def test_wrong_values(values: dict[Any, Any], words: list[str]) -> None:
    """An unknown key or a wrong value is one line with the source, the key and the right name or type."""
    with pytest.raises(SettingsError) as caught:
        merge([mapping_layer(values, "here")])
    message = str(caught.value)
    assert message.startswith("here: ")
    assert "\n" not in message
    for word in words:
        assert word in message
    assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("crawl.concurrency=5", "crawl.concurrency", 5),
        ("politeness.delay=0.5", "politeness.delay", 0.5),
        ("politeness.robots=no", "politeness.robots", False),
        ("politeness.robots=Off", "politeness.robots", False),
        ("politeness.robots=TRUE", "politeness.robots", True),
        ("politeness.robots=1", "politeness.robots", True),
        ("download.proxy=http://u:p@h:1/?a=b", "download.proxy", "http://u:p@h:1/?a=b"),
        ("download.proxy=", "download.proxy", ""),
        ("download.max_body=1.5 MiB", "download.max_body", 1572864),
        ("crawl.order=depth", "crawl.order", "depth"),
        ("CONCURRENT_REQUESTS=7", "crawl.concurrency", 7),
        ("ROBOTSTXT_OBEY=False", "politeness.robots", False),
        ("LOG_LEVEL=DEBUG", "log.level", "debug"),
        ("HTTPCACHE_ENABLED=True", "cache.mode", "everything"),
        ("HTTPCACHE_ENABLED=0", "cache.mode", "off"),
    ],
)
def test_options_are_text(option: str, name: str, value: object) -> None:
    """The text after -s NAME= becomes the setting's type; Scrapy's names work too."""
    found = value_of(merge([option_layer([option])]), name)
    assert found == value
    assert isinstance(found, bool) == isinstance(value, bool)


@pytest.mark.parametrize(
    "option",
    [
        "crawl.concurrency",
        "=5",
        "concurrency=5",
        "crawl.concurrency=",
        "crawl.concurrency=five",
        "crawl.concurrency=1.5",
        "politeness.robots=maybe",
        "politeness.delay=nan",
        "politeness.delay=inf",
        "crawl=5",
        "pipelines=a:B",
        "FOO=1",
    ],
)
def test_bad_options(option: str) -> None:
    """An option that is none is one line that starts with -s."""
    with pytest.raises(SettingsError, match=r"^-s.*\S$"):
        merge([option_layer([option])])


def test_a_later_option_wins() -> None:
    """Of two -s for one setting the last counts."""
    assert merge([option_layer(["crawl.max_pages=1", "crawl.max_pages=2"])]).crawl.max_pages == 2


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SCRAPE_POLITENESS__DELAY", "1.5", ("politeness.delay", 1.5)),
        ("SCRAPE_CRAWL__MAX_PAGES", "3", ("crawl.max_pages", 3)),
        ("SCRAPE_POLITENESS__ROBOTS", "off", ("politeness.robots", False)),
        ("SCRAPE_DOWNLOAD__MAX_BODY", "1 KiB", ("download.max_body", 1024)),
    ],
)
def test_environment(name: str, value: str, expected: tuple[str, object]) -> None:
    """SCRAPE_SECTION__KEY sets section.key; variables of other programs are nobody's business."""
    settings = merge([environment_layer({name: value, "PATH": "/bin", "SCRAPE_HOME": "x", "A__B": "c"})])
    assert value_of(settings, expected[0]) == expected[1]


def test_a_wrong_variable_is_refused() -> None:
    """A typing mistake in the environment is told as one in the file."""
    with pytest.raises(SettingsError, match=r"^the environment: unknown setting politeness\.delai.*politeness\.delay"):
        merge([environment_layer({"SCRAPE_POLITENESS__DELAI": "1"})])


@pytest.mark.parametrize("name", ["SCRAPE_POLITENESS_DELAY", "SCRAPE_CRAWL_MAX_PAGES"])
def test_one_underscore_too_few(name: str) -> None:
    """A variable that would be a setting with two underscores is not passed over."""
    right = name.replace("S_DELAY", "S__DELAY").replace("L_MAX", "L__MAX")
    with pytest.raises(SettingsError) as error:
        environment_layer({name: "1"})
    assert str(error.value) == f"the environment: {name}: write {right}, with two underscores"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1048576, 1048576),
        ("1048576", 1048576),
        ("32 MiB", 32 * 2**20),
        ("32mib", 32 * 2**20),
        (" 1.5 KiB ", 1536),
        ("1 kB", 1000),
        ("2MB", 2 * 10**6),
        ("1 GB", 10**9),
        ("1 GiB", 2**30),
        ("5 B", 5),
    ],
)
def test_sizes(text: object, size: int) -> None:
    """A size is a number of bytes or text with a unit, decimal or binary."""
    found = merge([mapping_layer({"download": {"max_body": text}}, "here")]).download.max_body
    assert found == size
    assert isinstance(found, Size)


@pytest.mark.parametrize("name", SCRAPY_NAMES)
def test_scrapy_names_lead_to_settings(name: str) -> None:
    """Each of Scrapy's names that is understood stands for a setting that exists."""
    section, _, key = SCRAPY_NAMES[name].partition(".")
    assert key in SECTIONS[section].__struct_fields__


def test_scrapy_names_in_custom_settings() -> None:
    """A spider from Scrapy keeps its custom_settings, mixed with this package's own names."""
    settings = merge(
        [
            mapping_layer(
                {"DOWNLOAD_DELAY": 2, "LOG_LEVEL": "WARNING", "crawl.max_depth": 1, "log": {"format": "json"}}, "x"
            )
        ]
    )
    assert (settings.politeness.delay, settings.log.level, settings.log.format) == (2.0, "warning", "json")
    assert settings.crawl.max_depth == 1


def test_find_file_looks_in_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest settings.toml counts: here, then in each folder above; a folder of that name is none."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "settings.toml").touch()
    (deep / "settings.toml").mkdir()
    assert find_file(deep) == tmp_path / "settings.toml"
    monkeypatch.chdir(deep)
    assert find_file(Path()) == tmp_path / "settings.toml"
    (tmp_path / "a" / "settings.toml").touch()
    assert find_file(deep) == tmp_path / "a" / "settings.toml"


@pytest.mark.parametrize(
    "text", ["[crawl]\nmax_pages = = 1\n", "[crawl]\n\n[crawl\n", "[crawl]\nmax_pages = 1\nmax_pages = 2\n"]
)
def test_bad_toml_names_file_and_line(tmp_path: Path, text: str) -> None:
    """A mistake in the file's syntax is one line with the file's name and the line's number."""
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"settings\.toml: not valid TOML: .*line [23]"):
        file_layer(file)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """Some editors begin a file with one."""
    file = tmp_path / "settings.toml"
    file.write_text("[crawl]\r\nmax_pages = 3\r\n", encoding="utf-8-sig")
    assert merge([file_layer(file)]).crawl.max_pages == 3


def test_a_middleware_that_is_listed_twice() -> None:
    """It would be applied twice."""
    order = [*merge([]).middlewares.order, "retry"]
    with pytest.raises(SettingsError, match=r'^here: middlewares\.order has "retry" twice$'):
        merge([mapping_layer({"middlewares.order": order}, "here")])


def test_unreadable_files(tmp_path: Path) -> None:
    """A file that is no UTF-8, or is not there, is a SettingsError too."""
    file = tmp_path / "settings.toml"
    file.write_bytes(b'[log]\nlevel = "\xff"\n')
    for path in (file, tmp_path / "none.toml"):
        with pytest.raises(SettingsError, match=r"none|settings"):
            file_layer(path)


def test_pipelines_come_in_order_with_their_arguments(tmp_path: Path) -> None:
    """Each [[pipelines]] table names a class and its arguments; a later source replaces the whole list."""
    file = tmp_path / "settings.toml"
    file.write_text('[[pipelines]]\nuse = "a.b:C"\ncurrency = "GBP"\n[[pipelines]]\nuse = "d:E"\n')
    settings = merge([file_layer(file)])
    assert settings.pipelines == (PartSettings("a.b:C", {"currency": "GBP"}), PartSettings("d:E", {}))
    assert merge([file_layer(file), mapping_layer({"pipelines": []}, "x")]).pipelines == ()
    assert merge([file_layer(file), mapping_layer({"crawl": {}}, "x")]).pipelines == settings.pipelines


def test_settings_cannot_be_changed() -> None:
    """What was checked stays as it was checked."""
    settings = merge([])
    with pytest.raises(AttributeError):
        settings.crawl.concurrency = 5  # type: ignore[misc]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_described(section: str) -> None:
    """Each key has a meaning that `scrape settings` can show."""
    described = describe(section)
    assert [key for key, _ in described] == list(SECTIONS[section].__struct_fields__)
    assert all(meaning for _, meaning in described)


def test_a_whole_file(tmp_path: Path) -> None:
    """A file with every section at its defaults is taken, and changes nothing."""
    lines = []
    for section, kind in SECTIONS.items():
        lines.append(f"[{section}]")
        for key in kind.__struct_fields__:
            value = getattr(kind(), key)
            text = str(value).lower() if isinstance(value, (bool, int, float)) else repr(value)
            lines.append(f"{key} = {list(value) if isinstance(value, tuple) else text}")
    file = tmp_path / "settings.toml"
    file.write_text("\n".join(lines))
    assert tomllib.loads(file.read_text()).keys() == SECTIONS.keys()
    settings = merge([file_layer(file)])
    assert all(getattr(settings, section) == kind() for section, kind in SECTIONS.items())


# -- [hosts] -----------------------------------------------------------------------------------------------------------


def hosts_of(*layers: Layer) -> dict[str, Host]:
    """Return the tables for some hosts that the layers make."""
    return dict(merge(layers).hosts)


def test_tables_for_hosts(tmp_path: Path) -> None:
    """A table in the file, custom_settings and -s are laid over each other key by key, each header for itself."""
    file = tmp_path / "settings.toml"
    file.write_text(
        '[hosts."Example.com"]\ndelay = 2\nconcurrency = 1\n[hosts."example.com".headers]\nX-A = "1"\nX-B = "2"\n'
        '[hosts."*.example.org"]\nrobots = false\n[hosts."127.0.0.1:8000"]\nadaptive = false\n'
    )
    custom = mapping_layer({"hosts": {"example.com": {"timeout": 5}}, 'hosts."example.com".jitter': 0.5}, "custom")
    options = option_layer(
        [
            'hosts."example.com".delay=3',
            "hosts.example.com.headers.X-B=3",
            'hosts."bücher.example".user_agent=me/1',
            "hosts.127.0.0.1:8000.robots=no",
        ]
    )
    settings = merge([file_layer(file), custom, options])
    assert settings.hosts == {
        "example.com": Host(concurrency=1, delay=3.0, jitter=0.5, timeout=5.0, headers={"X-A": "1", "X-B": "3"}),
        "*.example.org": Host(robots=False),
        "127.0.0.1:8000": Host(adaptive=False, robots=False),
        "xn--bcher-kva.example": Host(user_agent="me/1"),
    }
    assert settings.origins["hosts.example.com.delay"] == "-s"
    assert settings.origins["hosts.example.com.concurrency"] == str(file)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"example.com": {"delai": 1}},
            r'unknown setting hosts\.example\.com\.delai; did you mean hosts\."example\.com"\.delay',
        ),
        ({"example.com": {"concurrency_per_host": 1}}, r'did you mean hosts\."example\.com"\.concurrency\?'),
        ({"example.com": {"delay": "2"}}, r"hosts\.example\.com\.delay = '2': expected float, got str"),
        ({"example.com": {"delay": -1}}, r"expected float >= 0"),
        ({"example.com": {"concurrency": 0}}, r"expected int >= 1"),
        ({"example.com": {"robots": 1}}, r"expected bool, got int"),
        ({"example.com": {"downloader": "curl"}}, r"expected one of 'aiohttp'"),
        ({"example.com": {"proxy": "nowhere"}}, r"hosts\.example\.com\.proxy: not the URL of a proxy: 'nowhere'"),
        ({"example.com": {"headers": "X"}}, r"write a table of headers"),
        ({"example.com": {"headers": {"X Y": "1"}}}, r"expected a header's name"),
        ({"example.com": {"headers": {"X": "1\r\nY: 2"}}}, r"expected a header's name"),
        ({"example": {"com": {"delay": 2}}}, r'quote the name: \[hosts\."example\.com"\]'),
        ({"example": 2}, r'write a table for each host, such as \[hosts\."example\.com"\]'),
        ({"https://example.com/": {"delay": 2}}, r"write a host's name"),
        ({"*": {"delay": 2}}, r"write a host's name"),
        ({".example.com": {"delay": 2}}, r"write a host's name"),
        ({"a.*.com": {"delay": 2}}, r"write a host's name"),
        ({"example.com:443": {"delay": 2}}, r"leave out a default port"),
        ({"exa mple.com": {"delay": 2}}, r"write a host's name"),
        ({"a.b:99999": {"delay": 2}}, r"not a valid URL"),
    ],
)
def test_wrong_tables_for_hosts(table: dict[str, Any], message: str) -> None:
    """Each mistake in a host's table is one line with the place, the host and the mend."""
    with pytest.raises(SettingsError, match=message) as caught:
        merge([mapping_layer({"hosts": table}, "here")])
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["hosts=1", "hosts.delay=1", "hosts.=1", 'hosts."a".=1'])
def test_wrong_options_for_hosts(option: str) -> None:
    """So is each mistake on the command line."""
    with pytest.raises(SettingsError, match=r"^-s: .*hosts"):
        merge([option_layer([option])])


@pytest.mark.parametrize("name", ["download.proxy", "proxies.urls", 'hosts."a".proxy'])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://", "not the URL of a proxy: 'http://'"),
        ("proxy.example:3128", "not the URL of a proxy: 'proxy.example:3128'"),
        ("ftp://me:secret@h:1", "not the URL of a proxy: 'h:1'"),
        ("socks5://localhost", 'a SOCKS proxy needs a port: write "socks5://localhost:1080"'),
        ("socks5h://me:secret@localhost:", 'a SOCKS proxy needs a port: write "socks5h://localhost:1080"'),
    ],
)
def test_proxies_that_are_none(name: str, url: str, message: str) -> None:
    """What is no proxy's URL, or lacks the port that SOCKS needs, is one line without the credentials."""
    with pytest.raises(SettingsError) as caught:
        merge([option_layer([f"{name}={url}"])])
    assert str(caught.value).startswith(f"-s: {name.replace(chr(34), '')}: {message}")
    assert "secret" not in str(caught.value)
