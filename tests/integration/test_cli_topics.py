"""``cronally topics``, from its words to what is printed: a real daemon's socket, and moto's server for AWS."""

import io
import json
import os
import subprocess
import sys
import uuid
import zipfile

import boto3
import pytest

from cronally.domain.topic_policies import statement_id
from support.moto_server import free_port, moto_url
from support.recording_publisher import PUBLISHED, REJECTED, TOPIC_GONE
from support.rig import TOPIC

OTHER = "arn:aws:sns:eu-west-1:123456789012:other"


# --- the group --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "part"),
    [(["topic"], "did you mean 'topics'?"), (["topics", "lss"], "did you mean 'ls'?"),
     (["topics", "xyz"], "there are ls"), (["topics", "--jsno"], "--jsno"), (["topics", "ls", "extra"], "extra")],
)  # fmt: skip
def test_words_that_are_not_understood(alone, words, part):
    err = alone.bad(*words)
    assert part in err
    assert "--help'" in err


def test_a_socket_can_be_named_before_and_after_the_group(cronally, monkeypatch):
    socket = cronally.daemon.socket
    monkeypatch.setenv("CRONALLY_SOCKET", "/nowhere/x")
    assert cronally.ok("topics", "ls", "--socket", socket) == ""
    assert cronally.ok("--socket", socket, "topics", "ls") == ""
    assert "/nowhere/x" in cronally.bad("topics", "ls", code=3)


# --- ls ---------------------------------------------------------------------------------------------------------


def test_ls_shows_the_topics_in_use_and_how_they_are(cronally):
    rig = cronally.daemon.rig
    rig.publisher.script = lambda entry, _attempt: (
        TOPIC_GONE if entry.topic == OTHER else REJECTED if entry.name == "b" else PUBLISHED
    )
    for name in ("a", "b"):
        cronally.daemon.add(name, "0 9 * * *")
    cronally.daemon.add("c", "* * * * *", topic=OTHER)
    cronally.daemon.call(rig.clock.advance(120))
    lines = cronally.ok("topics", "ls").split("\n")
    assert lines[0].split() == ["TOPIC", "SCHEDULES", "PENDING", "HEALTH"]
    refusing, failing = lines[1:3]
    assert refusing.split()[:3] == [OTHER, "1", "1"]
    assert "refusing since 2026-11-23T09:0" in refusing
    assert TOPIC_GONE.error in refusing
    assert failing.split()[:3] == [TOPIC, "2", "0"]
    assert f"1 of its schedules failing: {REJECTED.error}" in failing
    one, two = cronally.json("topics", "ls")["topics"]
    assert (one["topic"], one["schedules"], one["refusing"]["error"]) == (OTHER, 1, TOPIC_GONE.error)
    assert (two["topic"], two["refusing"], two["failing"]) == (TOPIC, None, 1)


def test_ls_reads_every_page(cronally, monkeypatch):
    monkeypatch.setattr("cronally.admin.wire.MAX_PAGE", 2)
    topics = [f"{TOPIC}-{number}" for number in range(5)]
    for number, topic in enumerate(topics):
        cronally.daemon.add(f"s{number}", topic=topic)
    assert [one["topic"] for one in cronally.json("topics", "ls")["topics"]] == topics


def test_ls_of_no_topics_says_so(cronally):
    code, out, err = cronally("topics", "ls")
    assert (code, out) == (0, "")
    assert "cronally add" in err
    assert cronally.json("topics", "ls") == {"topics": []}


def test_ls_imports_nothing_heavy(cronally):
    cronally.daemon.add("a")
    code = (
        "import sys; from cronally.cli.main import main; main(['topics', 'ls']); "
        "print([m for m in ('aiohttp', 'asyncio', 'botocore', 'pydantic', 'rich', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.endswith("[]\n"), done.stdout


# --- against AWS --------------------------------------------------------------------------------------------------


ACCOUNT = "123456789012"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "eu-west-1"}


@pytest.fixture(scope="session")
def moto():
    return moto_url()


@pytest.fixture
def no_aws(tmp_path, monkeypatch):
    """No settings of AWS but those of the test."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def aws(moto, no_aws, monkeypatch):
    """The settings of a user of moto; calling it gives a client of a service."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": moto}.items():
        monkeypatch.setenv(name, value)
    clients = []

    def client(service):
        made = boto3.client(
            service,
            endpoint_url=moto,
            region_name="eu-west-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        clients.append(made)
        return made

    yield client
    for made in clients:
        made.close()


@pytest.fixture
def name():
    """A name that no other test has."""
    return f"t-{uuid.uuid4().hex[:12]}"


def topic_arn(name):
    return f"arn:aws:sns:eu-west-1:{ACCOUNT}:{name}"


def make_queue(aws, name, **attributes):
    """Return the ARN and the URL of a new queue."""
    url = aws("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return f"arn:aws:sqs:eu-west-1:{ACCOUNT}:{name}", url


def queue_policy(aws, url):
    attributes = aws("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return json.loads(attributes["Policy"])["Statement"]


def subscriptions(aws, arn):
    return aws("sns").list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]


def take(aws, url):
    found = aws("sqs").receive_message(QueueUrl=url, MessageAttributeNames=["All"], WaitTimeSeconds=5)
    return found.get("Messages", [])


def test_create_prints_the_arn_and_can_be_run_again(aws, alone, name):
    assert alone.ok("topics", "create", name) == f"{topic_arn(name)}\n"
    assert alone.json("topics", "create", name) == {"topic": topic_arn(name)}
    arn = alone.ok("topics", "create", name, "--region", "us-west-2").strip()
    assert arn == topic_arn(name).replace("eu-west-1", "us-west-2")


def test_a_fifo_topic_is_told_apart_by_ids_not_by_bodies(aws, alone, name):
    fifo = f"{name}.fifo"
    for _ in range(2):
        assert alone.ok("topics", "create", fifo, "--fifo") == f"{topic_arn(fifo)}\n"
    attributes = aws("sns").get_topic_attributes(TopicArn=topic_arn(fifo))["Attributes"]
    assert (attributes["FifoTopic"], attributes["ContentBasedDeduplication"]) == ("true", "false")
    assert f"write {name}.fifo" in alone.bad("topics", "create", name, "--fifo")
    assert "add --fifo" in alone.bad("topics", "create", fifo)


def test_a_queue_gets_what_the_topic_is_sent_and_keeps_its_policy(aws, alone, name):
    theirs = {
        "Sid": "Theirs",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "sqs:SendMessage",
        "Resource": "*",
    }
    queue, url = make_queue(aws, name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [theirs]}))
    arn = alone.ok("topics", "create", name).strip()
    out = alone.ok("topics", "subscribe", arn, queue)
    assert "+ queue policy" in out
    assert "+ subscription" in out
    policy = queue_policy(aws, url)
    assert [one["Sid"] for one in policy] == ["Theirs", statement_id(arn)]
    assert policy[1]["Condition"] == {"ArnEquals": {"aws:SourceArn": arn}}
    message_id = alone.ok("topics", "check", arn).strip()
    [message] = take(aws, url)
    assert message["MessageAttributes"]["cronally.test"]["StringValue"] == "true"
    assert json.loads(message["Body"])["test"] is True
    assert len(message_id) == 36
    again = alone.json("topics", "subscribe", arn, queue)
    assert {step["outcome"] for step in again["steps"]} == {"unchanged", "note"}
    assert (again["confirmed"], again["raw"]) == (True, True)
    assert queue_policy(aws, url) == policy
    assert len(subscriptions(aws, arn)) == 1
    changed = alone.json("topics", "subscribe", arn, queue, "--no-raw")
    assert (changed["subscription"], changed["raw"]) == (again["subscription"], False)


def test_two_topics_may_feed_one_queue(aws, alone, name):
    queue, url = make_queue(aws, name)
    for number in range(2):
        arn = alone.ok("topics", "create", f"{name}-{number}").strip()
        alone.ok("topics", "subscribe", arn, queue)
    sources = [one["Condition"]["ArnEquals"]["aws:SourceArn"] for one in queue_policy(aws, url)]
    assert sources == [topic_arn(f"{name}-{number}") for number in range(2)]


def test_a_fifo_topic_delivers_test_messages_to_a_fifo_queue(aws, alone, name):
    fifo = f"{name}.fifo"
    queue, url = make_queue(aws, fifo, FifoQueue="true")
    arn = alone.ok("topics", "create", fifo, "--fifo").strip()
    alone.ok("topics", "subscribe", arn, queue)
    for _ in range(2):  # none is taken for a repeat of the other
        alone.ok("topics", "check", arn)
        [message] = take(aws, url)
        aws("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    for target in (
        "https://example.com/",
        "ops@example.com",
        f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f",
    ):
        assert "SQS queues only" in alone.bad("topics", "subscribe", arn, target)


def test_a_function_may_be_invoked_by_the_topic_once(aws, alone, name):
    role = aws("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("a.py", "def handle(event, context): pass")
    function = aws("lambda").create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role=role,
        Handler="a.handle",
        Code={"ZipFile": code.getvalue()},
    )["FunctionArn"]
    arn = alone.ok("topics", "create", name).strip()
    assert "+ permission" in alone.ok("topics", "subscribe", arn, function)
    assert "= permission" in alone.ok("topics", "subscribe", arn, function)
    policy = json.loads(aws("lambda").get_policy(FunctionName=function)["Policy"])["Statement"]
    assert [one["Sid"] for one in policy] == [statement_id(arn)]
    assert [one["Endpoint"] for one in subscriptions(aws, arn)] == [function]
    absent = function.replace(name, "absent")
    assert "there is no function absent" in alone.bad("topics", "subscribe", arn, absent, code=1)


def test_for_a_url_the_topic_signs_with_sha_256(aws, alone, name):
    arn = alone.ok("topics", "create", name).strip()
    code, out, err = alone("topics", "subscribe", arn, "http://example.invalid/cron")
    assert (code, "warning: HTTP is not encrypted" in err) == (0, True)
    assert "+ signature" in out  # moto takes it, and does not tell


def test_an_address_is_subscribed(aws, alone, name):
    arn = alone.ok("topics", "create", name).strip()
    alone.ok("topics", "subscribe", arn, "ops@example.com", "--no-wait")
    assert [(one["Protocol"], one["Endpoint"]) for one in subscriptions(aws, arn)] == [
        ("email", "ops@example.com")
    ]


def test_ls_can_ask_sns(aws, cronally, name):
    queue, _ = make_queue(aws, name)
    arn = cronally.ok("topics", "create", name).strip()
    cronally.ok("topics", "subscribe", arn, queue)
    cronally.daemon.add("a", topic=arn)
    cronally.daemon.add("b", topic=topic_arn("absent"))
    lines = cronally.ok("topics", "ls", "--check").split("\n")
    assert "NOT THERE" in next(line for line in lines if "absent" in line)
    assert "standard, subscriptions: " in next(line for line in lines if name in line)
    plain = {one["topic"]: one["sns"] for one in cronally.json("topics", "ls", "--check")["topics"]}
    assert plain[arn]["exists"] is True
    assert plain[topic_arn("absent")]["exists"] is False


def test_ls_asks_the_stand_in_of_a_daemon_that_publishes_there(moto, no_aws, cronally, monkeypatch):
    arn = f"arn:aws:sns:us-east-1:987654321098:{uuid.uuid4().hex}"
    cronally.daemon.add("a", topic=arn)
    sns = boto3.client(
        "sns", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    sns.meta.events.register(
        "before-call.sns", lambda params, **_: params["headers"].update({"x-moto-account-id": "987654321098"})
    )
    sns.create_topic(Name=arn.rpartition(":")[2])
    sns.close()
    monkeypatch.setattr(cronally.daemon.reporting, "_stand_in", moto)
    [one] = cronally.json("topics", "ls", "--check")["topics"]
    assert one["sns"]["exists"] is True


# --- dry runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["create", "reports"], "aws sns create-topic --name reports --region eu-west-1"),
        (["create", "o.fifo", "--fifo", "--region", "us-east-1"], "aws sns create-topic --name o.fifo"),
        (["subscribe", TOPIC, f"arn:aws:sqs:eu-west-1:{ACCOUNT}:jobs"], "aws sqs set-queue-attributes"),
        (["subscribe", TOPIC, "https://example.com/"], "aws sns set-topic-attributes"),
        (["subscribe", TOPIC, "ops@example.com"], "aws sns subscribe"),
    ],
)
def test_a_dry_run_prints_the_calls_and_makes_none(alone, no_aws, monkeypatch, words, command):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setattr("cronally.app.aws._with_aws", None)  # whoever asks AWS fails
    assert command in alone.ok("topics", *words, "--dry-run")
    assert any(command in line for line in alone.json("topics", *words, "--dry-run")["commands"])


def test_a_dry_run_imports_nothing_heavy():
    code = (
        "import sys; from cronally.cli.main import main; "
        f"main(['topics', 'subscribe', '{TOPIC}', 'https://example.com/', '--dry-run']); "
        "print([m for m in ('aiobotocore', 'aiohttp', 'asyncio', 'botocore') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.endswith("[]\n"), done.stdout


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["check", "reports"], "write it as arn:aws:sns:REGION:ACCOUNT:NAME"),
        (["subscribe", TOPIC, "jobs"], "write https://HOST/PATH"),
        (["subscribe", TOPIC, "https://x.example/", "--raw", "--no-raw"], "not both"),
        (["subscribe", TOPIC, "https://x.example/", "--wait", "soon"], "write it as 90s"),
        (["subscribe", TOPIC, "ops@example.com", "--raw"], "--raw is for SQS and HTTP(S)"),
        (["create", "a b"], "cannot name a topic"),
        (["create", "reports", "--region", "Frankfurt"], "no AWS region"),
        (["create", "reports"], "name it with --region"),
    ],
)
def test_bad_input_is_refused_with_the_right_form(alone, no_aws, monkeypatch, words, part):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    assert part in alone.bad("topics", *words)


def test_a_topic_that_is_not_there_is_an_error_with_the_way_to_make_it(aws, alone):
    err = alone.bad("topics", "check", topic_arn("absent"), code=1)
    assert "cronally topics create absent --region eu-west-1" in err
    assert err.count("\n") == 1


def test_without_credentials_it_says_what_to_set(alone, no_aws):
    err = alone.bad("topics", "check", TOPIC, code=1)
    assert "no AWS credentials were found; set AWS_PROFILE" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("is_page", [False, True], ids=["nobody", "a web page"])
def test_a_server_that_is_no_sns_is_named(alone, aws, monkeypatch, is_page):
    url = f"http://127.0.0.1:{free_port()}"
    if is_page:
        url = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    err = alone.bad("topics", "check", TOPIC, code=1)
    assert "AWS_ENDPOINT_URL" in err
    assert err.count("\n") == 1
    if not is_page:
        assert url in err


def test_an_endpoint_that_is_no_url_is_told_apart_from_a_bug(alone, aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost")
    assert "Invalid endpoint: localhost; look at the network, at AWS_ENDPOINT_URL" in alone.bad(
        "topics", "check", TOPIC, code=1
    )
