"""Crafted files that name other files and addresses: nothing but the file itself is ever opened."""

import http.server
import json
import sys
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image
from rasters import ramp, write_raster
from watch import opened_below

from vsehub.data.folders import list_folder
from vsehub.processing.pixels import BadImageError
from vsehub.processing.places import NoPlaceError, Place
from vsehub.processing.raster import TiffHeader
from vsehub.processing.scenes import open_any, read_box, read_tiles

pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
SECRET = 201  # the grey of the file that must not be seen


class Visitors(http.server.BaseHTTPRequestHandler):
    """Counts requests."""

    count = 0

    def do_GET(self):
        Visitors.count += 1
        self.send_error(404)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Visitors) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def secret(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return write_raster(folder / "secret.tif", np.full((64, 64), SECRET, np.uint8))


def vrt(source, extra=""):
    band = f"<SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand>"
    return (
        f'<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1">{extra}<SimpleSource>'
        f"{band}</SimpleSource></VRTRasterBand></VRTDataset>"
    )


def tiff_with(metadata):
    """A TIFF whose own GDAL metadata (tag 42112) say more than they should."""

    def write(path):
        from PIL.TiffImagePlugin import ImageFileDirectory_v2

        tags = ImageFileDirectory_v2()
        tags[42112], tags.tagtype[42112] = f"<GDALMetadata>{metadata}</GDALMetadata>", 2
        Image.new("L", (64, 64), 5).save(path, tiffinfo=tags)

    return write


def crafted(secret, address):
    """Name of a file -> its text, or a function that writes it."""
    item = f'<Item name="OVERVIEW_FILE" domain="OVERVIEWS">{secret}</Item>'
    mrf = f"<MRF_META><Raster><Size x='64' y='64' c='1'/></Raster><DataFile>{secret}</DataFile></MRF_META>"
    wms = f'<GDAL_WMS><Service name="TMS"><ServerUrl>{address}/${{z}}</ServerUrl></Service><DataWindow/></GDAL_WMS>'
    gti = f"<GDALTileIndexDataset><IndexDataset>{secret}</IndexDataset></GDALTileIndexDataset>"
    stac = {"type": "FeatureCollection", "features": [{"assets": {"image": {"href": f"{address}/a.tif"}}}]}
    pds = f"PDS_VERSION_ID = PDS3\n^IMAGE = ({json.dumps(secret)}, 1)\nEND\n"
    return {
        "plain.vrt": vrt(secret),
        "renamed.tif": vrt(secret),
        "renamed.jpg": "<?xml version='1.0'?>\n<!-- a photograph -->\n" + vrt(secret),
        "web.vrt": vrt(f"/vsicurl/{address}/a.tif"),
        "zip.vrt": vrt(f"/vsizip/{secret}/a.tif"),
        "python.vrt": vrt(secret, "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"),
        "raw.vrt": vrt(secret).replace("SimpleSource", "RawSource"),
        "warped.vrt": "<VRTDataset subClass='VRTWarpedDataset'><GDALWarpOptions>"
        f"<SourceDataset>{secret}</SourceDataset></GDALWarpOptions></VRTDataset>",
        "map.wms": wms,
        "map.tif": wms,
        "capabilities.xml": f"<Capabilities><OnlineResource href='{address}'/></Capabilities>",
        "tiles.gti": gti,
        "tiles.tiff": gti,
        "meta.mrf": mrf,
        "meta.png": mrf,
        "stac.json": json.dumps(stac),
        "label.tif": pds,
        "label.lbl": pds,
        "envi.hdr": f"ENVI\nsamples = 64\nlines = 64\nbands = 1\ndata type = 1\nfile = {secret}\n",
        "overview.tif": tiff_with(item),
        "sample.tif": tiff_with(item.replace("<Item", '<Item sample="0"')),
        "mask.tif": tiff_with(f'<Item name="MASK_FILE" domain="OVERVIEWS">{secret}</Item>'),
        "address.tif": tiff_with(f'<Item name="OVERVIEW_FILE" domain="OVERVIEWS">/vsicurl/{address}/a.tif</Item>'),
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify")
def test_crafted_files_open_nothing_but_themselves(tmp_path, secret, address):
    folder, before = tmp_path / "photos", Visitors.count
    folder.mkdir()
    files = crafted(secret, address)
    for name, content in files.items():
        content(folder / name) if callable(content) else (folder / name).write_text(content)
    for name in ("plain.tif.aux.xml", "overview.tif.aux.xml"):
        (folder / name).write_text(f"<PAMDataset><Metadata domain='OVERVIEWS'><MDI key='OVERVIEW_FILE'>{secret}</MDI>"
                                   "</Metadata></PAMDataset>")  # fmt: skip
    (folder / "overview.tif.ovr").symlink_to(secret)
    assert len(files) >= 15
    with opened_below(tmp_path / "elsewhere") as seen:
        for name in files:
            for read in (open_any, lambda p: list(read_tiles(p, 32, 0)), lambda p: read_box(p, (0, 0, 64, 64)), Place):
                try:
                    shown = read(str(folder / name))
                    shown = [image for _, image in shown] if isinstance(shown, list) else [shown]
                    assert all(np.asarray(image).max() == 5 for image in shown), name
                except (BadImageError, NoPlaceError) as error:
                    assert isinstance(error, NoPlaceError) or name in str(error)
        listed = list_folder(folder)
    assert not seen and Visitors.count == before
    refused = {path.rsplit("/", 1)[1] for path in listed.refused}
    assert {"plain.vrt", "map.wms", "tiles.gti", "meta.mrf", "capabilities.xml", "overview.tif.ovr"} <= refused
    assert all("names other files" in why for path, why in listed.refused.items() if path.endswith("vrt"))


def test_the_watch_sees_what_it_should(tmp_path, secret):
    """That no file is opened is worth something only if the trap snaps."""
    rasterio = pytest.importorskip("rasterio")
    tiff_with(f'<Item name="OVERVIEW_FILE" domain="OVERVIEWS">{secret}</Item>')(tmp_path / "trap.tif")
    with opened_below(tmp_path / "elsewhere") as seen, rasterio.open(tmp_path / "trap.tif") as file:
        file.read(1, out_shape=(32, 32))
    assert seen == {"secret.tif"}


@pytest.mark.parametrize(
    "path",
    ["/vsicurl/{address}/a.tif", "/vsizip/{zip}/a.tif", "/vsisubfile/0_900,{zip}", "zip://{zip}!a.tif", "{zip}/a.tif",
     "GTIFF_DIR:1:{tif}", "s3://bucket/a.tif", "GTIFF_RAW:{tif}", "{address}/a.tif", "/vsistdin/", "/vsigzip/{tif}"],
)  # fmt: skip
def test_virtual_paths_and_prefixes_are_never_opened(tmp_path, secret, address, path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(secret, "a.tif")
    before = Visitors.count
    path = path.format(address=address, zip=tmp_path / "a.zip", tif=secret)
    for read in (open_any, lambda p: next(read_tiles(p)), lambda p: read_box(p, (0, 0, 1, 1))):
        with pytest.raises(BadImageError, match="no such file|virtual"):
            read(path)
    assert Visitors.count == before


def test_names_that_look_like_addresses_are_names(tmp_path, monkeypatch):
    values = ramp(20, 30, 1, np.uint16, 900)
    for name in ("s3:", "a!b.tif", "zip+http:"):
        (tmp_path / name).mkdir() if name.endswith(":") else None
    monkeypatch.chdir(tmp_path)
    expected = None
    for name in ("a!b.tif", "s3:/a.tif", "zip+http:/b.tif", "GTIFF_DIR:1:a.tif", "x?y=1.tif", "ä %20 #1.tif"):
        write_raster(tmp_path / "scene.tif", values)
        (tmp_path / "scene.tif").rename(tmp_path / name)
        found = np.asarray(open_any(name))
        expected = found if expected is None else expected
        assert np.array_equal(found, expected)


def test_sidecar_files_do_not_change_a_picture(tmp_path):
    path = write_raster(tmp_path / "a.tif", ramp(64, 64, 1, np.uint8, 255))
    before = np.asarray(open_any(path))
    write_raster(tmp_path / "a.tif.msk", np.zeros((64, 64), np.uint8))
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n10\n10\n")
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><NoDataValue>9</NoDataValue></PAMRasterBand></PAMDataset>"
    )
    assert np.array_equal(np.asarray(open_any(path)), before)
    with pytest.raises(NoPlaceError):
        Place(path)


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_torn_header_is_no_crash(cut):
    data = b"II*\0\x08\0\0\0\x02\0" + bytes(range(12)) + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\x08\0\0\0"
    assert TiffHeader(data[:cut]).pages >= 1  # the chain of directories is a circle, too


def test_gdal_options_do_not_leak_into_the_process(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    open_any(write_raster(tmp_path / "a.tif", ramp(8, 8, 1, np.uint16, 9)))
    with rasterio.Env() as env:
        assert "GDAL_PAM_ENABLED" not in env.options
    assert rasterio._env.get_gdal_config("GDAL_PAM_ENABLED") is None
