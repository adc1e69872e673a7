"""Tests of the newsletter, with a worker. The fixtures come with rec2pm."""

import newsletter
import pytest
from confluent_kafka import Producer

from stream.testing import untrained


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Real versions, or one that has learned nothing: its lists are arbitrary, but the same each time."""
    folder = tmp_path_factory.mktemp("models")
    untrained(folder, list(newsletter.TITLES))
    return folder


def test_a_customer_is_told_what_they_have_not_bought(rec2pm_driver, models):
    """Without a broker, in milliseconds."""
    driver = rec2pm_driver(models, **newsletter.SETTINGS)
    for product in ("tea", "mug"):
        driver.send_record(*newsletter.event("ann", product))
    text = newsletter.newsletter("ann", driver.newest_list("ann").items)
    assert "you may like" in text
    assert "Green tea" not in text
    assert "A mug" not in text


def test_looking_at_a_product_is_no_purchase(rec2pm_driver, models):
    driver = rec2pm_driver(models, **newsletter.SETTINGS)
    driver.send_record(*newsletter.event("ann", "tea", kind="look"))
    assert driver.lists() == []
    assert driver.counts.passed_over == 1


def test_nobody_is_written_to_who_wants_to_be_forgotten(rec2pm_driver, models):
    driver = rec2pm_driver(models, **newsletter.SETTINGS)
    driver.send_record(*newsletter.event("ann", "tea"))
    driver.forget("ann")
    assert driver.newest_list("ann") is None
    assert driver.user("ann") is None


def test_the_newsletter_of_today_is_that_of_yesterday_after_a_crash(rec2pm_driver, models):
    driver = rec2pm_driver(models, **newsletter.SETTINGS)
    for product in ("tea", "mug", "cake", "tea", "tea", "jam"):
        driver.send_record(*newsletter.event("ann", product))
    before = driver.user("ann")
    assert before.folds == 1
    driver.crash()
    assert driver.user("ann") == before


def test_with_a_broker_and_a_worker_of_its_own(rec2pm_worker, models):
    """The whole way through Kafka, in seconds."""
    worker = rec2pm_worker(models, **newsletter.SETTINGS)
    producer = Producer({"bootstrap.servers": worker.settings.bootstrap_servers, "partitioner": "murmur2_random"})
    for product in ("tea", "mug"):
        key, value = newsletter.event("ann", product)
        producer.produce(worker.settings.interactions_topic, value, key)
    producer.flush(30)
    worker.wait_until_taken()
    text = newsletter.newsletter("ann", worker.newest_list("ann").items)
    assert "Green tea" not in text
