// What viewers in a browser make of a SEG: node read_seg.mjs cornerstone|dcmjs SEG SOURCE...
// Prints {number of the segment: [[x, y, z], ...]}, the patient coordinates (LPS, mm) of its voxels. `dcmjs` knows no geometry and prints
// [frame of the source from 0, row, column]. Sources: the files that the SEG was drawn on, slices in any order or one multi-frame object.
import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { register } from "node:module";

// Node 18, that of Debian 12, lacks two globals, and takes ES modules for CommonJS where their package does not say what they are.
globalThis.crypto ??= webcrypto;
globalThis.CustomEvent ??= class extends Event {};
const resolve = `export async function resolve(name, context, next) {
  const found = await next(name, context);
  return /(\\/esm\\/.*|\\.es)\\.js$/.test(found.url) ? { ...found, format: "module" } : found;
}`;
register("data:text/javascript," + encodeURIComponent(resolve));
const { adaptersSEG } = await import("@cornerstonejs/adapters");
const { metaData } = await import("@cornerstonejs/core");
const { BitArray, DicomMessage, DicomMetaDictionary } = (await import("dcmjs")).data;

function bytesOf(path) {
  const file = readFileSync(path);
  return file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength);
}

function read(path) {
  return DicomMetaDictionary.naturalizeDataset(DicomMessage.readFile(bytesOf(path)).dict);
}

/** The modules of one frame as Cornerstone's image loaders give them, from its own functional groups, the shared ones or the root. */
function modules(source, frame) {
  const groups = [source.PerFrameFunctionalGroupsSequence?.[frame], source.SharedFunctionalGroupsSequence?.[0]];
  const from = (group, keyword) => [...groups.map((one) => one?.[group]?.[0]), source].find((item) => item?.[keyword] !== undefined)[keyword].map(Number);
  const imageOrientationPatient = from("PlaneOrientationSequence", "ImageOrientationPatient");
  const pixelSpacing = from("PixelMeasuresSequence", "PixelSpacing");
  return {
    instance: source,
    generalSeriesModule: { modality: source.Modality, seriesInstanceUID: source.SeriesInstanceUID },
    generalImageModule: { sopInstanceUID: source.SOPInstanceUID, instanceNumber: source.InstanceNumber },
    imagePixelModule: { rows: source.Rows, columns: source.Columns, samplesPerPixel: 1 },
    imagePlaneModule: {
      frameOfReferenceUID: source.FrameOfReferenceUID,
      rows: source.Rows,
      columns: source.Columns,
      imagePositionPatient: from("PlanePositionSequence", "ImagePositionPatient"),
      imageOrientationPatient,
      rowCosines: imageOrientationPatient.slice(0, 3),
      columnCosines: imageOrientationPatient.slice(3),
      pixelSpacing,
      rowPixelSpacing: pixelSpacing[0],
      columnPixelSpacing: pixelSpacing[1],
    },
  };
}

async function cornerstone(seg, sources) {
  const known = new Map();
  sources.forEach((source, number) => {
    for (let frame = 0; frame < (source.NumberOfFrames ?? 1); frame++) known.set(`test:${number}/frames/${frame + 1}`, modules(source, frame));
  });
  metaData.addProvider((type, id) => known.get(id)?.[type]);
  const ids = [...known.keys()];
  const found = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer(ids, seg, { metadataProvider: metaData });
  const points = {};
  for (const layer of found.labelMapImages) {
    for (const image of layer) {
      const plane = known.get(image.referencedImageId).imagePlaneModule;
      image.getPixelData().forEach((segment, place) => {
        if (!segment) return;
        const [row, column] = [Math.floor(place / plane.columns), place % plane.columns];
        (points[segment] ??= []).push(
          plane.imagePositionPatient.map((start, axis) => start + column * plane.columnPixelSpacing * plane.rowCosines[axis] + row * plane.rowPixelSpacing * plane.columnCosines[axis]),
        );
      });
    }
  }
  return points;
}

function byPixel(seg, sources) {
  const pixels = seg.BitsAllocated === 1 ? BitArray.unpack(seg.PixelData[0] ?? seg.PixelData) : new Uint8Array(seg.PixelData[0] ?? seg.PixelData);
  const points = {};
  seg.PerFrameFunctionalGroupsSequence.forEach((group, frame) => {
    const source = group.DerivationImageSequence[0].SourceImageSequence[0];
    if (!sources.some((one) => one.SOPInstanceUID === source.ReferencedSOPInstanceUID)) throw new Error("a frame of another source");
    const segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber;
    for (let place = 0; place < seg.Rows * seg.Columns; place++) {
      if (!pixels[frame * seg.Rows * seg.Columns + place]) continue;
      (points[segment] ??= []).push([Number(source.ReferencedFrameNumber ?? 1) - 1, Math.floor(place / seg.Columns), place % seg.Columns]);
    }
  });
  return points;
}

const [reader, seg, ...files] = process.argv.slice(2);
const sources = files.map(read);
process.stdout.write(JSON.stringify(reader === "cornerstone" ? await cornerstone(bytesOf(seg), sources) : byPixel(read(seg), sources)));
