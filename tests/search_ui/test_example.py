"""Search by example, near-duplicates and the user's own table on the page."""

from __future__ import annotations

import io
import shutil

import pytest
from PIL import Image

from search_ui.uploads import kept


class Upload:
    """What `st.file_uploader` gives."""

    def __init__(self, name, content):
        self.name, self.content = name, content

    def getvalue(self):
        return self.content


def names(page):
    return [text.value for text in page.text if not text.value.startswith("“")]


def ask(page, query):
    return page.text_input(key="query").set_value(query).run()


def box(page, label):
    return next(one for one in page.text_input if one.label == label)


def picture(colour):
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "PNG")
    return file.getvalue()


def test_an_uploaded_image_finds_what_looks_like_it(index, open_page):
    page = open_page(index)
    page.file_uploader(key="example").set_value(("seen.png", picture((255, 0, 0)), "image/png")).run()
    assert not page.exception
    assert names(page)[0] == "red.mp4"
    assert "Moments like **seen\\.png**" in [one.value for one in page.markdown]


def test_an_upload_that_is_no_picture_is_one_line_of_error(index, open_page):
    page = open_page(index)
    page.file_uploader(key="example").set_value(("seen.png", b"no picture", "image/png")).run()
    assert not page.exception
    assert len(page.error) == 1
    assert not names(page)


def test_more_like_this_leaves_the_moment_out_and_back_leads_to_the_text(index, open_page):
    page = ask(open_page(index), "red")
    assert names(page)[0] == "red.mp4"
    page.button(key="like-1").click().run()
    assert len(names(page)) == 2
    assert "red.mp4" not in names(page)
    page.button(key="forget").click().run()
    assert names(page)[0] == "red.mp4"
    page.button(key="like-1").click().run()
    assert names(ask(page, "green"))[0] == "green.mp4"


def test_a_copy_is_counted_and_named_on_the_card(own_index, open_page, own_videos, index_folder):
    shutil.copy(own_videos / "red.mp4", own_videos / "red-copy.mp4")
    index_folder(own_videos, own_index)
    page = ask(open_page(own_index), "red")
    shown = names(page)
    assert sum(name.startswith("red") and "  " not in name for name in shown) == 1
    assert sum(name.startswith("red") and name.endswith("0:00–0:04") for name in shown) == 1
    page.checkbox[0].set_value(False).run()
    assert {"red.mp4", "red-copy.mp4"} <= set(names(page))


def test_an_uploaded_table_filters_by_its_columns(index, open_page):
    page = ask(open_page(index), "colour")
    page.file_uploader(key="metadata").set_value(
        ("own.csv", b"path,camera\nred.mp4,north\ngreen.mp4,south\n", "")
    ).run()
    assert len(page.get("image")) == 3
    assert "filters nothing yet" in "\n".join(one.value for one in page.caption)
    box(page, "Conditions, separated by commas").set_value("camera=north").run()
    assert not page.error
    assert names(page) == ["red.mp4"]
    box(page, "Conditions, separated by commas").set_value("camera=north, height>=720").run()
    assert names(page) == []
    box(page, "Conditions, separated by commas").set_value("lens=wide").run()
    assert "there is no column" in page.error[0].value


def test_only_one_video_and_a_limit_for_each(index, open_page):
    page = ask(open_page(index), "colour")
    box(page, "Within one video").set_value("green.mp4").run()
    assert names(page) == ["green.mp4"]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\a.csv", "/abs.csv", ".hidden.csv", "a b:c*.csv", "", ".."]
)
def test_uploads_stay_in_the_folder_of_the_page(name):
    path = kept(Upload(name, b"content"))
    assert path.parent.parent.name.startswith("videobert-page-")
    assert path.read_bytes() == b"content"
    assert kept(Upload(name, b"content")) == path
    assert kept(Upload(name, b"other")) != path
